"""How long a run still takes: the pace of its updates, and the evaluations that are yet to come.

An update's own seconds are counted, not the clock between two of them: a pause, a resume and an evaluation that has the
engines to itself lie between, and come again or not by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.plain import is_figure
from rayzero.services.store.run_seconds import update_seconds

Row = Mapping[str, Any]
FEWEST = 8
"""Updates that the pace is taken of at least, where there are so many; else half of those that were made."""


def _never(_: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """What of a recipe decides how long its run takes."""

    num_updates: int
    evaluates_at: Callable[[int], bool] = _never
    """By version."""
    evaluates_apart: bool = False
    """An evaluation has the engines to itself; else it goes on beside the next updates."""
    clock: Callable[[], float] = field(default=time.time, compare=False)

    @staticmethod
    def of(recipe: Recipe) -> TimeLeft:
        """As the recipe has it."""
        training = recipe.training
        return TimeLeft(training.num_updates, recipe.evaluates_at, training.is_synchronous)

    def seconds(self, rows: Sequence[Row], evaluations: Sequence[Row] = ()) -> float | None:
        """Of the run after its last row; None before two updates were made. `evaluations` are rows of
        evaluations.jsonl: how long they took is known of those that have `evaluation_s`."""
        if len(rows) < 2:
            return None
        taken = [(row, update_seconds(row, before)) for before, row in zip((None, *rows), rows, strict=False)]
        spans = [(float(each["time_s"]), _number(each.get("evaluation_s"))) for each in evaluations if "time_s" in each]
        own = taken[1:]  # before the first, everything was new: compiled, loaded, filled
        own = own[-max(FEWEST, len(own) // 2) :]
        undisturbed = [seconds for row, seconds in own if not self._is_disturbed(row, seconds, spans)]
        pace = _mean(undisturbed or [seconds for _, seconds in own])
        last = int(rows[-1]["update"])
        left = pace * max(0, self.num_updates - last) + self._evaluations(last, own, pace, evaluations, spans)
        since = max(0.0, self.clock() - float(rows[-1]["time_s"]))
        return max(0.0, left - min(since, pace)) if last < self.num_updates else max(0.0, left)

    def _is_disturbed(self, row: Row, seconds: float, spans: Sequence[tuple[float, float]]) -> bool:
        """Whether an evaluation went on beside it."""
        if self.evaluates_apart:
            return False
        end = float(row["time_s"])
        return any(ended - took < end and end - seconds < ended for ended, took in spans)

    def _evaluations(
        self,
        last: int,
        own: Sequence[tuple[Row, float]],
        pace: float,
        evaluations: Sequence[Row],
        spans: Sequence[tuple[float, float]],
    ) -> float:
        """Seconds of those that are due: by what they cost, or could, beside updates; the last is waited for."""
        due = sum(map(self.evaluates_at, range(last + 1, self.num_updates)))
        whole = _mean([took for _, took in spans])
        cost = whole
        if not self.evaluates_apart and any(int(each.get("update", 0)) > 0 for each in evaluations):
            disturbed = [seconds for row, seconds in own if self._is_disturbed(row, seconds, spans)]
            begun = max(1, sum(ended > float(own[0][0]["time_s"]) for ended, _ in spans))
            cost = min(whole, max(0.0, sum(disturbed) - pace * len(disturbed)) / begun)
        return cost * due + whole * (last < self.num_updates and self.evaluates_at(self.num_updates))


def _number(value: Any) -> float:
    """0 where a file holds none."""
    return float(value) if is_figure(value) else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
