from __future__ import annotations

import asyncio
import os
from io import BytesIO
from pathlib import Path

import pytest

from rayzero.rewards.sandbox import folders
from rayzero.rewards.sandbox.boxes import Box
from rayzero.rewards.sandbox.limits import Limits
from rayzero.rewards.sandbox.reaper import Ended
from rayzero.rewards.sandbox.runs import Run
from rayzero.rewards.sandbox.stdin_file import StdinFile


class FullDisk(BytesIO):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def box_that(end: asyncio.Future[Ended], stdout: int) -> Box:
    """Its process is this one; killed, it ends without an error."""
    box = Box(os.getpid(), os.pidfd_open(os.getpid()), end, StdinFile(), stdout)

    def kill() -> None:
        if not end.done():
            end.set_result(Ended(0, 0.0, 0))

    box.kill = kill  # type: ignore[method-assign]
    return box


async def test_output_that_no_disk_takes_is_a_failure_of_the_machine() -> None:
    """Cut short, it would pass for a program that is broken."""
    theirs, ours = os.pipe()
    box = box_that(asyncio.get_running_loop().create_future(), theirs)
    run = Run(box, Limits(), sink=FullDisk())
    os.write(ours, b"the artifact")
    outcome = await run.work(None, b"")
    box.close()
    os.close(ours)
    assert outcome.ended == "failed" and outcome.is_infrastructure
    assert "No space left" in outcome.detail


@pytest.mark.parametrize("by_its_test", [False, True])
@pytest.mark.parametrize(("num_files", "ended"), [(2, "exited"), (3, "files")])
async def test_a_folder_that_no_look_saw_full_is_seen_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int, ended: str, by_its_test: bool
) -> None:
    monkeypatch.setattr(folders, "MAX_FILES", 2)
    theirs, ours = os.pipe()
    box = box_that(asyncio.get_running_loop().create_future(), theirs)
    box.folder = folders.make(str(tmp_path / "private"), 1 << 20, None)
    for number in range(num_files):
        Path(box.folder.path, str(number)).touch()
    run = Run(box, Limits())
    if by_its_test:
        run.end("exited")
    else:
        box.end.set_result(Ended(0, 0.0, 0))
    outcome = await run.work(None, b"")
    box.close()
    os.close(ours)
    assert outcome.ended == ended
