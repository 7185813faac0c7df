"""One member: the command that trains it, and what a finished one shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.sweep.grid import combinations
from rayzero.services.sweep.members import Member
from tests.unit.services.sweep.kit import finish, recipe_file


def member(folder: Path, pipeline: bool = False) -> Member:
    return Member(
        combination=combinations(["seed=0,1"])[0],
        recipe=recipe_file(folder),
        is_pipeline=pipeline,
        directory=folder / "seed-0",
    )


def test_the_command_is_the_one_that_a_user_would_give(tmp_path: Path) -> None:
    assert member(tmp_path).command[2:] == [
        "rayzero", "train", str(tmp_path / "small.yaml"), "seed=0", "--run-dir", str(tmp_path / "seed-0"),
    ]  # fmt: skip
    assert member(tmp_path, pipeline=True).command[3:5] == ["pipeline", "run"]


def test_a_run_shows_both_ends_and_its_curve(tmp_path: Path) -> None:
    found = member(tmp_path)
    assert not found.is_done
    finish(found, after=0.7)
    assert found.is_done
    shown = found.shown()
    assert shown.figures["before accuracy"] == 0.1 and shown.figures["after greedy"] == pytest.approx(0.8)
    assert shown.curves[""]["update"] == [0, 3] and shown.curves[""]["accuracy"] == [0.1, 0.7]
    assert shown.seconds == 60.0
