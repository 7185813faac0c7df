"""A run's model by itself: the last checkpoint or another, in another precision, or the adapter; with a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.cli import export as module
from rayzero.services.cli.export import choose_checkpoint, export
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import RunDirectory

RECIPE = """
name: demo
description: adds numbers
model: {path: Qwen/Qwen3-0.6B}
learner: {loss: {name: grpo}, optimizer: {learning_rate: 1.0e-6}}
training: {groups_per_update: 16, group_size: 8}
data: {train: [{kind: jsonl, name: sums}]}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "find_damage", lambda path: None)
    folder = tmp_path / "runs" / "demo"
    for update in (5, 10, 20):
        checkpoint = folder / "checkpoints" / f"update_{update:06d}"
        for name in ("state/learner.pt", "adapter/adapter_config.json", "manifest.json", "config.json"):
            (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
            (checkpoint / name).write_text(json.dumps({"dtype": "float32", "update": update}))
    (folder / "recipe.yaml").write_text(RECIPE)
    rows = [{"update": update, "accuracy": value} for update, value in ((0, 0.1), (10, 0.5), (20, 0.4))]
    append_lines(folder / "evaluations.jsonl", rows)
    return folder


def exported(run: Path, out: Path, **options: Any) -> set[str]:
    asked: dict[str, Any] = {"update": None, "best": False, "adapter": False, "dtype": "", **options}
    export("demo", run.parent, out, **asked)
    return {file.name for file in out.iterdir()}


def test_the_model_alone_with_a_card(run: Path, tmp_path: Path) -> None:
    assert exported(run, tmp_path / "out") == {"config.json", "README.md"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["update"] == 20
    card = (tmp_path / "out" / "README.md").read_text()
    for words in ('base_model: "Qwen/Qwen3-0.6B"', "# demo", "20 updates of grpo", "| 16 × 8 |", "10.0%", "40.0%"):
        assert words in card
    assert exported(run, tmp_path / "adapter", adapter=True) == {"adapter_config.json", "README.md"}


def test_a_card_says_of_what_its_accuracy_is(run: Path, tmp_path: Path) -> None:
    """As sampled and greedy, with intervals; the best of several is not shown as the only one."""
    row = {"update": 5, "accuracy": 0.3, "standard_error": 0.05, "greedy_accuracy": 0.6, "greedy_standard_error": 0.1}
    append_lines(run / "evaluations.jsonl", [row])
    exported(run, tmp_path / "five", update=5)
    card = (tmp_path / "five" / "README.md").read_text()
    assert "| held-out accuracy at update 5, as sampled | 30.0% ± 9.8% |" in card
    assert "| held-out accuracy at update 5, greedy | 60.0% ± 19.6% |" in card
    assert "95 % interval" in card and "flatters" not in card
    exported(run, tmp_path / "best", best=True)
    best = (tmp_path / "best" / "README.md").read_text()
    assert "The highest of 4 evaluations on the same prompts, which flatters it." in best


def test_which_checkpoint(run: Path) -> None:
    directory = RunDirectory(run)
    assert choose_checkpoint(directory, None, best=True).name == "update_000010"
    assert choose_checkpoint(directory, 5, best=False).name == "update_000005"
    with pytest.raises(UsageError, match=r"no checkpoint of update 7; there are \[5, 10, 20\]"):
        choose_checkpoint(directory, 7, best=False)


def test_what_is_there_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        exported(run, tmp_path / "out")
