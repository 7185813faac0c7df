"""Old runs go, first shown; a live one, or one that has begun since, never."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from rayzero.services.cli.prune import prune
from rayzero.services.schema.errors import UsageError


def make(runs: Path, name: str, days: float, *, finished: bool = True) -> Path:
    folder = runs / name
    (folder / "checkpoints").mkdir(parents=True)
    for file in ("recipe.yaml", "run.lock", "checkpoints/weights", *(["summary.json"] if finished else [])):
        (folder / file).write_text("x" * 100)
        os.utime(folder / file, (time.time() - days * 86_400,) * 2)
    return folder


def left(runs: Path) -> set[str]:
    return {folder.name for folder in runs.iterdir()}


def test_it_shows_and_removes_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, days in (("new", 1), ("old", 40), ("older", 50)):
        make(tmp_path, name, days)
    make(tmp_path, "unfinished", 60, finished=False)
    (tmp_path / "no-run").mkdir()
    everything = left(tmp_path)
    prune(tmp_path, None, 30, False, False, as_json=False)
    shown = capsys.readouterr().out
    assert "older" in shown and "--yes removes them" in shown and "unfinished" not in shown
    assert left(tmp_path) == everything
    prune(tmp_path, 2, 30, False, True, as_json=False)
    assert left(tmp_path) == everything - {"older"}, "the newest two stay"
    prune(tmp_path, None, 30, True, True, as_json=True)
    assert left(tmp_path) == {"new", "no-run"}


def test_a_live_run_stays(tmp_path: Path) -> None:
    with open(make(tmp_path, "live", 90) / "run.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prune(tmp_path, 0, None, True, True, as_json=False)
        assert left(tmp_path) == {"live"}
    prune(tmp_path, 0, None, True, True, as_json=False)
    assert left(tmp_path) == set()


def test_a_linked_directory_is_not_followed(tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere", "run", 90)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(elsewhere)
    prune(tmp_path / "runs", 0, None, True, True, as_json=False)
    assert (elsewhere / "recipe.yaml").is_file() and left(tmp_path / "runs") == {"link"}


def test_what_is_old_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"say what is old: --keep 10"):
        prune(tmp_path, None, None, False, True, as_json=False)
