"""`rayzero status`: what it prints of a run's state."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayzero.services.cli.runs import commands
from rayzero.services.cli.status import _render
from rayzero.services.schema.errors import RunUnreachable
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_recipe
from tests.unit.services.observe.api.kit import Watched


async def test_a_run_at_a_glance(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    for update in (1, 2):
        watched.view.events.record("warning", update=update, text="all rewards are equal")
    status = watched.view.status()
    starting = {**status["workers"][0], "worker": "rollout-9", "policy_version": None, "lag_versions": None}
    status["workers"].append(starting | {"node": "0123456789abcdef"})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(_render(status, 120))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["rollout-0", "serving", "0", "3", "0", "–"] in lines
    assert next(line for line in lines if line[:1] == ["rollout-9"])[3:] == ["–", "–", "01234567"]
    assert lines[-1][1:] == ["warning", "all", "rewards", "are", "equal", "(×2)"]
    narrow = Console(width=40, record=True, file=io.StringIO())
    narrow.print(_render(status, 40))
    text = narrow.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 40
    assert [word for word in ("rollout-0", "serving", "version", "0.500") if word not in text] == []
    assert "".join(str(watched.view.directory.path).split()) in "".join(text.split()), "folded, not cut off"


def asked(directory: RunDirectory, *options: str, width: str = "100") -> str:
    """What `rayzero status` prints of it; that it has ended is the exit code, and no error."""
    found = CliRunner().invoke(commands, ["status", str(directory.path), *options], env={"COLUMNS": width})
    assert found.exit_code == 3 and not found.stderr, found.exception
    return found.stdout


def test_a_run_that_has_ended_says_how_it_went(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    figures: dict[str, Any] = {"reward_std": 0.4, "train_accuracy": 0.2, "truncated_share": 0.3, "reward/[x]": 0.25}
    rows = [{"update": n, "reward_mean": 0.1 * n, "entropy": None, "time_s": n, **figures} for n in (1, 2, 3)]
    append_lines(directory.file("metrics.jsonl"), [row | {"completion_tokens": 9} for row in rows])
    append_lines(directory.file("evaluations.jsonl"), [{"update": 0, "accuracy": 0.2}, {"update": 3, "accuracy": 0.5}])
    alive = CliRunner().invoke(commands, ["status", str(directory.path)])
    assert isinstance(alive.exception, RunUnreachable) and not alive.stdout, "its api.json is yet to come"
    directory.release()
    directory.file("summary.json").write_text("{}")
    text = asked(directory)
    lines = [line.split() for line in text.splitlines()]
    assert ["state", "finished"] in lines and ["reward_mean", "0.1", "0.3"] in lines
    assert ["held-out", "20.0%", "at", "update", "0,", "50.0%", "at", "update", "3"] in lines
    assert ["update", "1", "update", "3"] in lines and ["reward/[x]", "0.25", "0.25"] in lines
    words = " ".join(text.split())
    assert "yellow: 30% of the completions are cut off" in text and "Raise rollout.sampling.max_tokens" in words
    assert "docs/guides/debugging.md#completions-are-cut-off" in text and "entropy" not in text
    assert max(map(len, asked(directory, width="40").splitlines())) <= 40
    found = json.loads(asked(directory, "--json"))
    assert found["health"]["findings"][0]["level"] == "yellow"
    assert (found["first"]["update"], found["figures"]["update"], found["phase"]) == (1, 3, "finished")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_run_that_has_no_update_has_its_health_all_the_same(tmp_path: Path, options: tuple[str, ...]) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    directory.release()
    assert "no update has been made yet" in asked(directory, *options)
