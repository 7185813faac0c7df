"""The end of a run, with held-out prompts and without."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rayzero.services.run.report import print_report, write_summary
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory


@pytest.mark.parametrize("accuracies", [{}, {0: 0.25, 3: 0.5}])
def test_the_summary_is_written_and_printed(tmp_path: Path, accuracies: dict[int, float]) -> None:
    directory = RunDirectory(tmp_path)
    directory.rollouts.mkdir()
    append_lines(directory.file("metrics.jsonl"), [{"update": 3, "reward_mean": 0.5}])
    rows = [
        {"update": update, "accuracy": value, "reward_mean": value, "completion_tokens_mean": 9.0}
        for update, value in accuracies.items()
    ]
    append_lines(directory.file("evaluations.jsonl"), rows)
    for update in accuracies:
        append_lines(directory.rollouts / f"evaluation_{update:06d}.jsonl", [])
    controller: Any = SimpleNamespace(
        accuracies=accuracies,
        buffer=SimpleNamespace(version=3, dropped_counts=dict),
        recipe=SimpleNamespace(name="demo", seed=0),
        num_samples=12,
        num_tokens=99,
    )
    summary = write_summary(directory, controller, 60.0)
    assert summary["accuracy_best"] == max(accuracies.values(), default=None)
    console = Console(file=io.StringIO(), width=200)
    print_report(console, directory, summary)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("25% → 50%" in shown) == bool(accuracies)
    assert ("no prompt is held out; training reward" in shown) != bool(accuracies)
