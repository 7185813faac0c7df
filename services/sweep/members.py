"""One combination's run: its directory, its command, whether it is done, what it showed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rayzero.services.pipeline.job import attempt_at
from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.pipeline.report import collect
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory
from rayzero.services.sweep.grid import Combination

Curve = Mapping[str, Sequence[float | None]]
"""By `update`, `accuracy`, `length`: as many values each."""

RUN_FIGURES = {
    "accuracy": "accuracy",
    "greedy_accuracy": "greedy",
    "completion_tokens_mean": "length",
}
"""What an evaluation of a run says, and what it is called here, as in a pipeline's report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a finished member showed."""

    figures: Mapping[str, float]
    """By `WHO FIGURE`: before and after of a run, each model of a pipeline's last evaluation."""
    curves: Mapping[str, Curve]
    """Of each RL stage over its updates; a run has one without a name."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One combination of a sweep."""

    combination: Combination
    recipe: Path
    is_pipeline: bool
    directory: Path

    def check(self) -> None:
        """Raises RecipeError where `rayzero train` would refuse the recipe as this one changes it."""
        (load_pipeline if self.is_pipeline else load_recipe)(self.recipe, self.combination.overrides)

    @property
    def command(self) -> list[str]:
        """What trains it, and goes on where it was interrupted."""
        verbs = ["pipeline", "run"] if self.is_pipeline else ["train"]
        changes = self.combination.overrides
        return [sys.executable, "-m", "rayzero", *verbs, str(self.recipe), *changes, "--run-dir", str(self.directory)]

    @property
    def is_done(self) -> bool:
        """Whether it came to its end."""
        if not self.is_pipeline:
            return RunDirectory(self.directory).is_finished()
        return (self.directory / "report.json").is_file() and not self._attempt().left(None)

    def shown(self) -> Shown:
        """Its figures and curves. To be asked of a finished one."""
        return self._of_pipeline() if self.is_pipeline else self._of_run()

    def _of_run(self) -> Shown:
        directory = RunDirectory(self.directory)
        summary = json.loads(directory.file("summary.json").read_text(encoding="utf-8"))
        rows = {row["update"]: row for row in read_lines(directory.file("evaluations.jsonl"))}
        figures = {
            f"{when} {name}": float(rows[update][key])
            for key, name in {**RUN_FIGURES, "pass_at_k": f"pass@{rows[0].get('num_completions')}"}.items()
            for when, update in (("before", 0), ("after", summary["updates"]))
            if rows.get(update, {}).get(key) is not None
        }
        curve = {
            "update": list(rows),
            "accuracy": [row["accuracy"] for row in rows.values()],
            "length": [row["completion_tokens_mean"] for row in rows.values()],
        }
        return Shown(figures=figures, curves={"": curve}, seconds=summary["seconds"])

    def _of_pipeline(self) -> Shown:
        stages = self._attempt().summary()
        report = collect(stages)
        figures = {
            f"{model} {name}" if len(by_source) == 1 else f"{model} {source} {name}": float(value["mean"])
            for model, by_source in report.results.items()
            for source, each in by_source.items()
            for name, value in each.items()
            if isinstance(value, Mapping) and value.get("mean") is not None
        }
        held_out: dict[str, Any] = {row["stage"]: row["figures"].get("held_out") for row in stages}
        curves = {stage: held_out.get(stage) or curve for stage, curve in report.curves.items()}
        return Shown(figures=figures, curves=curves, seconds=sum(row["seconds"] or 0.0 for row in stages))

    def _attempt(self) -> Any:
        loaded = load_pipeline(self.recipe, self.combination.overrides)
        return attempt_at(loaded, self.directory, Console(quiet=True))
