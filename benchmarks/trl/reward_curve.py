"""Accuracy over seconds and over samples of one training, and when a level was reached.

Seconds are those of training: zero is when the untrained model's evaluation was done, evaluations are taken out where
the training stood still for them, and the start and the end of the processes are kept apart (`outside_s`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory

RESUMED_S = 60.0
"""By so much less than its updates' times span, a run's own seconds say that it was begun more than once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One evaluation."""

    update: int
    seconds: float
    """Of training, up to these weights."""
    samples: int
    """Completions that were paid for up to these weights, dropped ones included."""
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """What a level cost."""

    seconds: float
    samples: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One training. Its points begin with update 0 and are in order."""

    points: tuple[Point, ...]
    outside_s: float
    """Wall seconds that are not training: start, evaluations, end."""
    ended: str
    """`updates`: all were made; `reached`: stopped at the level that was asked for; `time`: stopped at its limit."""
    rewards: tuple[float | None, ...] = ()
    """Mean reward of update 1, 2, …; None where every verdict was an error."""

    @property
    def last(self) -> Point:
        """The newest evaluation."""
        return self.points[-1]

    def held(self) -> list[float]:
        """The accuracy that no later evaluation falls below, a value a point: it never falls."""
        held: list[float] = []
        for point in reversed(self.points):
            held.append(min(point.accuracy, held[-1]) if held else point.accuracy)
        return held[::-1]

    def reach(self, level: float) -> Reached | None:
        """When the held accuracy crosses `level`, on a straight line between two evaluations; None: it never does."""
        held = self.held()
        for index, (value, after) in enumerate(zip(held, self.points, strict=True)):
            if value < level:
                continue
            if index == 0:
                return Reached(seconds=0.0, samples=0.0)
            before, low = self.points[index - 1], held[index - 1]
            share = (level - low) / (value - low)
            return Reached(
                seconds=before.seconds + share * (after.seconds - before.seconds),
                samples=before.samples + share * (after.samples - before.samples),
            )
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedRatio:
    """How many times as much the other side needed."""

    value: float
    is_bound: bool
    """The other side was stopped before it was there: it needed more than this."""

    def __str__(self) -> str:
        return f"{'> ' if self.is_bound else ''}{self.value:.1f}×"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerComparison:
    """Both sides at one level, on one seed."""

    ours: Reached
    theirs: Reached | None
    """None: not reached."""
    seconds: SpeedRatio
    samples: SpeedRatio


def compare(ours: Curve, theirs: Curve, level: float) -> TrainerComparison | None:
    """None where there is nothing to compare: we did not reach the level, or one side began above it."""
    mine, other = ours.reach(level), theirs.reach(level)
    if mine is None or mine.seconds <= 0 or (other is not None and other.seconds <= 0):
        return None
    spent = other or Reached(seconds=theirs.last.seconds, samples=theirs.last.samples)
    return TrainerComparison(
        ours=mine,
        theirs=other,
        seconds=SpeedRatio(value=spent.seconds / mine.seconds, is_bound=other is None),
        samples=SpeedRatio(value=spent.samples / mine.samples, is_bound=other is None),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardGap:
    """How far the other side's training rewards lie above ours, update by update on the same prompts."""

    mean: float
    standard_error: float
    num_updates: int


def reward_gap(pairs: Sequence[tuple[Curve, Curve]]) -> RewardGap | None:
    """Over (ours, theirs) of every seed; None where fewer than two updates can be paired. It says more about samples
    than a handful of evaluations: both sides were given the same prompts, and many more completions were judged."""
    gaps = [
        other - mine
        for ours, theirs in pairs
        for mine, other in zip(ours.rewards, theirs.rewards, strict=False)
        if mine is not None and other is not None
    ]
    if len(gaps) < 2:
        return None
    return RewardGap(mean=mean(gaps), standard_error=stdev(gaps) / len(gaps) ** 0.5, num_updates=len(gaps))


def median_ratio(ratios: Sequence[SpeedRatio]) -> SpeedRatio:
    """The median; a bound itself where one of the bounds could lie above it."""
    middle = median(ratio.value for ratio in ratios)
    return SpeedRatio(value=middle, is_bound=any(ratio.is_bound and ratio.value <= middle for ratio in ratios))


def read_run(path: Path) -> tuple[Recipe, Curve]:
    """A finished run directory of rayzero's, and the recipe it was made with.

    Raises:
        RecipeError: no run, not finished, or begun more than once: its clock has a gap.
    """
    directory = RunDirectory(path)
    content = directory.recipe()
    if content is None:
        raise RecipeError(f"--runs {path}: no run directory (it has no recipe.yaml)")
    if not directory.is_finished():
        raise RecipeError(f"--runs {path}: the run is not finished; rayzero train goes on with it")
    seconds = float(json.loads(directory.file("summary.json").read_text(encoding="utf-8"))["seconds"])
    recipe = validate_recipe(content, {}, default_origin=str(directory.file("recipe.yaml")))
    updates, evaluations = (read_lines(directory.file(f"{name}.jsonl")) for name in ("metrics", "evaluations"))
    if not updates or not evaluations or evaluations[0]["update"] != 0:
        raise RecipeError(f"--runs {path}: metrics.jsonl or evaluations.jsonl lacks its beginning")
    span = max(updates[-1]["time_s"], evaluations[-1]["time_s"]) - evaluations[0]["time_s"]
    if span > seconds + RESUMED_S:
        raise RecipeError(f"--runs {path}: the run was interrupted and resumed, its clock has a gap; train it again")
    return recipe, run_curve(recipe, updates, evaluations, seconds)


def run_curve(
    recipe: Recipe, updates: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]], wall_s: float
) -> Curve:
    """From the rows of metrics.jsonl and evaluations.jsonl. A row's `time_s` is when its weights were served."""
    accuracies = {row["update"]: row for row in evaluations}
    points = [Point(update=0, seconds=0.0, samples=0, accuracy=accuracies[0]["accuracy"])]
    began_s, evaluated_s, samples = accuracies[0]["time_s"], 0.0, 0
    seconds = 0.0
    for row in updates:
        samples += int(row["samples"])
        seconds = row["time_s"] - began_s - evaluated_s
        found = accuracies.get(row["update"])
        if found is None:
            continue
        paid = samples + row["dropped_groups"] * recipe.training.group_size
        points.append(Point(update=row["update"], seconds=seconds, samples=paid, accuracy=found["accuracy"]))
        # Above staleness 0 the training goes on beside an evaluation: its time is left in.
        if recipe.training.is_synchronous:
            evaluated_s += max(0.0, found["time_s"] - row["time_s"])
    return Curve(
        points=tuple(points),
        outside_s=max(0.0, wall_s - seconds),
        ended="updates",
        rewards=tuple(row["reward_mean"] for row in updates),
    )
