"""What a long run keeps: the newest rollouts, what a resume needs, and an audit that knows of the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.config.observe import RetentionSettings
from rayzero.services.store.json_lines import append_lines, read_lines
from rayzero.services.store.ledger import audit
from rayzero.services.store.retention import Retention, cut_lines, removed_through
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_group, make_recipe


def run_of(folder: Path, updates: int, checkpoints: tuple[int, ...], **settings: Any) -> RunDirectory:
    """A run of one group an update, with a dropped one beside each, under a retention."""
    directory = RunDirectory(folder / "run")
    directory.prepare(make_recipe(num_updates=updates, groups_per_update=1))
    directory.release()
    recorder = Recorder(directory, Retention(directory, RetentionSettings(**settings)))
    append_lines(directory.rollouts / "evaluation_000000.jsonl", [{"group_id": -1}])
    for update in range(1, updates + 1):
        recorder.on_ledger("admitted", 2 * update - 2, version=update - 1)
        recorder.on_ledger("admitted", 2 * update - 1, version=update - 1)
        recorder.on_ledger("trained", 2 * update - 2, version=update)
        recorder.on_ledger("dropped", 2 * update - 1, version=update, reason="failed")
        append_lines(directory.rollouts / f"evaluation_{update:06d}.jsonl", [{"group_id": -update}])
        versions = [[0, 1, update - 1]]
        append_lines(directory.rollouts / "dropped.jsonl", [{"group_id": 2 * update - 1, "versions": versions}])
        if update in checkpoints:
            (directory.checkpoints / f"update_{update:06d}").mkdir()
        recorder.on_update({"update": update}, [make_group(2 * update - 2, version=update - 1)])
    return directory


def kept(directory: RunDirectory, kind: str) -> list[int]:
    return sorted(int(file.stem.partition("_")[2]) for file in directory.rollouts.glob(f"{kind}_*.jsonl"))


def test_everything_is_kept_by_default(tmp_path: Path) -> None:
    directory = run_of(tmp_path, 5, (2, 4))
    assert kept(directory, "update") == [1, 2, 3, 4, 5] and len(read_lines(directory.rollouts / "dropped.jsonl")) == 5


def test_the_last_updates_are_kept_and_an_audit_stays_sound(tmp_path: Path) -> None:
    directory = run_of(tmp_path, 9, (8,), rollout_updates=3)
    assert kept(directory, "update") == [7, 8, 9] and kept(directory, "evaluation") == [0, 7, 8, 9]
    dropped = [row["group_id"] for row in read_lines(directory.rollouts / "dropped.jsonl")]
    assert dropped and min(dropped) >= 2 * 6 - 1 and removed_through(directory.rollouts) == 6
    found = audit(directory.path)
    assert not [problem for problem in found.problems if "rollouts" in problem]
    (directory.rollouts / "update_000008.jsonl").unlink()
    assert [problem for problem in audit(directory.path).problems if "update 8" in problem]


def test_what_a_resume_needs_is_never_removed(tmp_path: Path) -> None:
    """A damaged checkpoint is passed over, and the learner is brought forward from the one before."""
    directory = run_of(tmp_path, 9, (3, 8), rollout_updates=1)
    assert kept(directory, "update") == [4, 5, 6, 7, 8, 9]
    assert kept(run_of(tmp_path / "none", 5, (), rollout_updates=1), "update") == [1, 2, 3, 4, 5]


def test_the_oldest_go_when_all_are_too_large(tmp_path: Path) -> None:
    directory = run_of(tmp_path, 6, (6,))
    for update in range(1, 7):
        file = directory.rollouts / f"update_{update:06d}.jsonl"
        file.write_bytes(file.read_bytes() + b" " * 400_000 + b"\n")
    Retention(directory, RetentionSettings(rollout_bytes=1_000_000)).apply()
    assert kept(directory, "update") == [5, 6]


def test_logs_lose_their_beginning_while_actors_append(tmp_path: Path) -> None:
    directory = run_of(tmp_path, 1, ())
    lines = b"".join(b"line %06d\n" % number for number in range(200_000))
    large, small = directory.logs / "rollout-0.log", directory.logs / "driver.log"
    small.write_bytes(b"short\n")
    descriptor = os.open(large, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, lines)
    Retention(directory, RetentionSettings(log_bytes=1_000_000)).apply()
    os.write(descriptor, b"still written\n")
    os.close(descriptor)
    left = large.read_bytes()
    assert len(left) <= 1_000_000 and left.startswith(b"line 1") and left.endswith(b"line 199999\nstill written\n")
    assert small.read_bytes() == b"short\n"


def test_events_keep_their_last_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    append_lines(file, [{"number": number} for number in range(20_000)])
    cut_lines(file, 100_000)
    numbers = [row["number"] for row in read_lines(file)]
    assert file.stat().st_size <= 50_000 and numbers == list(range(numbers[0], 20_000))
    cut_lines(file, None)


def test_what_cannot_be_removed_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    directory = run_of(tmp_path, 9, (8,))

    def refuse(self: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    Retention(directory, RetentionSettings(rollout_updates=1)).apply()
    assert "observe.retention" in caplog.text
