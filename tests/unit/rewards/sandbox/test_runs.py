from __future__ import annotations

import asyncio
import os
from io import BytesIO

from rayzero.rewards.sandbox.boxes import Box
from rayzero.rewards.sandbox.limits import Limits
from rayzero.rewards.sandbox.reaper import Ended
from rayzero.rewards.sandbox.runs import Run
from rayzero.rewards.sandbox.stdin_file import StdinFile


class FullDisk(BytesIO):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


async def test_output_that_no_disk_takes_is_a_failure_of_the_machine() -> None:
    """Cut short, it would pass for a program that is broken."""
    theirs, ours = os.pipe()
    end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    box = Box(os.getpid(), os.pidfd_open(os.getpid()), end, StdinFile(), theirs)
    run = Run(box, Limits(), sink=FullDisk())

    def kill() -> None:
        if not end.done():
            end.set_result(Ended(0, 0.0, 0))

    box.kill = kill  # type: ignore[method-assign]
    os.write(ours, b"the artifact")
    outcome = await run.work(None, b"")
    box.close()
    os.close(ours)
    assert outcome.ended == "failed" and outcome.is_infrastructure
    assert "No space left" in outcome.detail
