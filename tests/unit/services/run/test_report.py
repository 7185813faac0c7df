"""How a run ends on the terminal: both ends with their intervals, and the way to the reader's own problem."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rayzero.services.cli.run_list import describe
from rayzero.services.run.report import print_report, write_summary
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory, write_json
from tests.fakes import make_recipe

SUMMARY = {"updates": 3, "samples": 12, "seconds": 61.0, "model": "runs/fake/model"}


def said_of(folder: Path, evaluations: list[dict[str, Any]], data: dict[str, Any] | None = None) -> str:
    directory = RunDirectory(folder / "fake")
    directory.rollouts.mkdir(parents=True, exist_ok=True)
    recipe = make_recipe().model_dump(mode="json")
    write_json(directory.file("recipe.yaml"), {**recipe, **({} if data is None else {"data": data})})  # JSON is YAML
    append_lines(directory.file("evaluations.jsonl"), evaluations)
    said = io.StringIO()
    print_report(Console(file=said, width=150), directory, SUMMARY)
    return said.getvalue()


def evaluation(update: int, **figures: Any) -> dict[str, Any]:
    return {"update": update, "accuracy": 0.25, "standard_error": 0.02, "reward_mean": 0.2, **figures}


def test_all_three_accuracies_have_their_intervals(tmp_path: Path) -> None:
    more = {"greedy_accuracy": 0.5, "greedy_standard_error": 0.05, "pass_at_k": 0.75, "pass_at_k_standard_error": 0.01}
    said = said_of(tmp_path, [evaluation(at, **more, num_completions=8) for at in (0, 3)])
    for line in ("accuracy, as sampled", "25.0% ± 3.9%", "50.0% ± 9.8%", "right in one of 8 (pass@k)", "75.0% ± 2.0%"):
        assert line in said
    assert "half of a 95 % interval" in said


def test_what_was_not_measured_has_no_row(tmp_path: Path) -> None:
    said = said_of(tmp_path, [evaluation(0), evaluation(3)])
    assert "pass@k" not in said and "greedy" not in said


def test_who_trained_on_a_shipped_task_is_shown_the_way_to_their_own(tmp_path: Path) -> None:
    rows = [evaluation(0), evaluation(3)]
    assert "rayzero new mine --data prompts.jsonl" in said_of(tmp_path, rows)
    own = {"train": [{"kind": "jsonl", "path": "mine.jsonl"}]}
    assert "rayzero new" not in said_of(tmp_path / "own", rows, own)


@pytest.mark.parametrize("accuracies", [{}, {0: 0.25, 3: 0.5}])
def test_the_summary_is_written_and_printed(tmp_path: Path, accuracies: dict[int, float]) -> None:
    directory = RunDirectory(tmp_path)
    directory.rollouts.mkdir()
    earlier = {"update": 1, "reward_mean": 0.5, "time_s": 1.0, "wait_s": 2.0, "update_s": 3.0}  # of a session long ago
    append_lines(directory.file("metrics.jsonl"), [earlier, {"update": 3, "reward_mean": 0.5, "time_s": time.time()}])
    assert describe(directory)["seconds"] == 5.0
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
    assert describe(directory)["seconds"] == summary["seconds"] == 65.0
    assert summary["accuracy_best"] == max(accuracies.values(), default=None)
    console = Console(file=io.StringIO(), width=200)
    print_report(console, directory, summary)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("25% → 50%" in shown) == bool(accuracies)
    assert ("no prompt is held out; training reward" in shown) != bool(accuracies)


def test_a_long_answer_does_not_fill_the_screen(tmp_path: Path) -> None:
    rows = {"prompt_id": "one", "index": 0, "messages": [{"role": "user", "content": "Write it."}], "status": "wrong"}
    answer = {"tests": [{"assert": "assert add(1, 2) == 3"}] * 100}
    folder = tmp_path / "fake" / "rollouts"
    folder.mkdir(parents=True)
    for update in (0, 3):
        append_lines(folder / f"evaluation_{update:06d}.jsonl", [rows | {"answer": answer, "completion": "def"}])
    said = said_of(tmp_path, [evaluation(0), evaluation(3)])
    assert "Write it." in said and "add(1, 2)" in said and "…" in said
    assert len(said.splitlines()) < 40
