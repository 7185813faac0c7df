"""A sweep: what runs, what does not run again, what failed, and what an interrupted one leaves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayzero.services.schema.errors import RecipeError, RunDirectoryError, UsageError
from rayzero.services.sweep import sweep
from rayzero.services.sweep.members import Member
from rayzero.services.sweep.sweep import Sweep, open_sweep
from tests.unit.services.sweep.kit import finish, recipe_file

SEEDS = ["seed=0,1,2"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Members finish in no time; one whose seed is 1 fails. Signals stay as they are."""
    found: list[str] = []

    class Process:
        async def run(self, command: list[str], log: Path) -> int:
            directory = Path(command[-1])
            found.append(directory.name)
            log.write_text("all\nthat it said\n")
            seed = int(directory.name.removeprefix("seed-")[0])
            if seed == 1:
                return 1
            member = next(each for each in MEMBERS if each.directory == directory)
            finish(member, 0.5 + 0.1 * seed)
            return 0

        def send(self, _: Any) -> None:
            return

    monkeypatch.setattr(sweep, "MemberProcess", Process)
    monkeypatch.setattr(sweep, "answer_signals", lambda answer: [])
    return found


MEMBERS: list[Member] = []


def opened(folder: Path, arguments: list[str]) -> tuple[Sweep, io.StringIO]:
    said = io.StringIO()
    found = open_sweep(recipe_file(folder), arguments, folder / "out", Console(file=said, width=200))
    MEMBERS[:] = found.members
    return found, said


def test_it_runs_all_shows_what_is_done_and_names_what_failed(tmp_path: Path, ran: list[str]) -> None:
    found, said = opened(tmp_path, SEEDS)
    assert found.run(jobs=2) == 1
    assert sorted(ran) == ["seed-0", "seed-1", "seed-2"]
    assert "that it said" in said.getvalue() and "failed: seed=1" in said.getvalue()
    written = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [member["name"] for member in written["members"]] == ["seed=0", "seed=2"]
    assert written["dtype"] == "float32"
    assert (tmp_path / "out" / "sweep.png").is_file()
    assert "| after accuracy | 60.0 ± " in (tmp_path / "out" / "sweep.md").read_text()


def test_the_same_command_goes_on_and_seeds_may_be_added(tmp_path: Path, ran: list[str]) -> None:
    opened(tmp_path, SEEDS)[0].run(jobs=1)
    ran.clear()
    found, said = opened(tmp_path, ["seed=0,1,2,3"])
    found.run(jobs=1)
    assert ran == ["seed-1", "seed-3"]
    assert "2 of 4 are done already" in said.getvalue()


def test_two_at_one_sweep_are_refused(tmp_path: Path, ran: list[str]) -> None:
    with opened(tmp_path, SEEDS)[0]._locked(), pytest.raises(RunDirectoryError, match="in use by another"):
        opened(tmp_path, SEEDS)[0].run(jobs=1)
    assert not ran


def test_all_compute_in_the_dtype_that_it_began_in(tmp_path: Path, ran: list[str]) -> None:
    opened(tmp_path, SEEDS)
    head = json.loads((tmp_path / "out" / "sweep.json").read_text())
    (tmp_path / "out" / "sweep.json").write_text(json.dumps({**head, "dtype": "bfloat16"}))
    assert "model.dtype=bfloat16" in opened(tmp_path, SEEDS)[0].members[0].command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["seed=0,1", "training.num_updates=4"], "another recipe"), (["training.group_size=2,4"], "of other keys")],
)
def test_another_sweep_in_its_directory_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    opened(tmp_path, SEEDS)
    with pytest.raises(UsageError, match=words):
        opened(tmp_path, arguments)


def test_a_value_that_no_recipe_takes_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training\.group_size"):
        opened(tmp_path, ["training.group_size=2,two"])
    assert not (tmp_path / "out").exists()
