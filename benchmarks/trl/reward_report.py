"""What `rayzero bench time-to-reward` says of its trainings: figures for programs, a table and notes for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.trl.reward_curve import Curve, SpeedRatio, compare, median_ratio, reward_gap
from rayzero.services.schema.config.recipe import Recipe

MARGIN = 0.02
"""How far below rayzero's last accuracy a seed's own target lies."""
TARGET = "target"
WORDS = {"updates": "all updates made", "reached": "there", "time": "at its limit"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRun:
    """One seed."""

    seed: int
    ours: Curve
    theirs: Curve | None
    """None: TRL is not installed."""

    @property
    def target(self) -> float:
        """The accuracy that this seed is compared at, whatever the levels."""
        return target_of(self.ours)


def target_of(ours: Curve) -> float:
    """A little below the accuracy that rayzero ended with: it holds that, and not by one prompt's luck."""
    return ours.last.accuracy - MARGIN


def summarise(recipe: Recipe, trials: Sequence[SeedRun], levels: Sequence[float], settings: str) -> dict[str, Any]:
    """Everything that is printed, as plain data; the command's help says what the keys mean."""
    return {
        "recipe": recipe.name,
        "model": recipe.model.path,
        "settings": {"both": _describe_both(recipe), "rayzero": _describe_ours(recipe), "trl": settings},
        "levels": {
            **{f"{level:g}": _at_level(trials, [level] * len(trials)) for level in levels},
            TARGET: _at_level(trials, [trial.target for trial in trials]),
        },
        "reward_gap": _plain(reward_gap([(t.ours, t.theirs) for t in trials if t.theirs is not None])),
        "seeds": [
            {
                "seed": trial.seed,
                "target": trial.target,
                "rayzero": asdict(trial.ours),
                "trl": None if trial.theirs is None else asdict(trial.theirs),
            }
            for trial in trials
        ],
    }


def table_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """One row a level, the first row the head; a cell lists the seeds."""
    rows = [["level", "rayzero, s", "TRL, s", "TRL ÷ rayzero", "median", "rayzero, samples", "TRL, samples", "median"]]
    for level, found in figures["levels"].items():
        seeds = found["seeds"]
        own = _joined(f"{100 * seed['level']:.0f} %" for seed in seeds)
        rows.append([
            own if level == TARGET else f"{100 * float(level):g} %",
            _joined(_cost(seed["rayzero"], "seconds") for seed in seeds),
            _joined(_cost(seed["trl"], "seconds") for seed in seeds),
            _joined(_times(seed["ratio_seconds"]) for seed in seeds),
            _times(found["median_seconds"]),
            _joined(_cost(seed["rayzero"], "samples") for seed in seeds),
            _joined(_cost(seed["trl"], "samples") for seed in seeds),
            _times(found["median_samples"]),
        ])  # fmt: skip
    return rows


def notes(trials: Sequence[SeedRun], figures: Mapping[str, Any]) -> list[str]:
    """What the table does not show and a reader must know."""
    ours, theirs = [t.ours for t in trials], [t.theirs for t in trials if t.theirs is not None]
    notes = [
        f"seeds {_joined(str(trial.seed) for trial in trials)}; the last row is each seed's target, rayzero's last "
        f"accuracy less {100 * MARGIN:.0f} points; –: not reached; open: TRL was stopped before it showed who is ahead",
        *figures["settings"].values(),
        f"not counted, rayzero: {_joined(f'{c.outside_s:.0f}' for c in ours)} s of start, evaluations and end",
    ]
    if theirs:
        notes += [
            f"not counted, TRL: {_joined(f'{c.outside_s:.0f}' for c in theirs)} s",
            f"TRL ended: {_joined(_end_of(curve) for curve in theirs)}; no later evaluation holds it to its last level",
        ]
    if (gap := figures["reward_gap"]) is not None:
        notes.append(
            f"mean reward in training on the same prompts, TRL less rayzero: {100 * gap['mean']:+.1f} ± "
            f"{100 * gap['standard_error']:.1f} points over {gap['num_updates']} updates"
        )
    return notes


def _at_level(trials: Sequence[SeedRun], levels: Sequence[float]) -> dict[str, Any]:
    """What a level cost, a level a seed. A median only where every seed has a ratio: the rest would be a choice."""
    seeds, ratios = [], []
    for trial, level in zip(trials, levels, strict=True):
        found = None if trial.theirs is None else compare(trial.ours, trial.theirs, level)
        ratios.append(found)
        seeds.append({
            "seed": trial.seed,
            "level": level,
            "rayzero": _plain(trial.ours.reach(level)),
            "trl": _plain(trial.theirs.reach(level)) if trial.theirs is not None else None,
            "ratio_seconds": _plain(found.seconds) if found is not None else None,
            "ratio_samples": _plain(found.samples) if found is not None else None,
        })  # fmt: skip
    known = [found for found in ratios if found is not None]
    whole = len(known) == len(trials)
    return {
        "seeds": seeds,
        "median_seconds": _plain(median_ratio([found.seconds for found in known])) if whole else None,
        "median_samples": _plain(median_ratio([found.samples for found in known])) if whole else None,
    }


def _describe_both(recipe: Recipe) -> str:
    training, optimizer, evaluation = recipe.training, recipe.learner.optimizer, recipe.evaluation
    left_in = "" if training.is_synchronous else " (rayzero's, which run beside the training, are left in)"
    return (
        f"both: {training.groups_per_update} × {training.group_size} samples an update, {training.num_updates} "
        f"updates, AdamW {optimizer.betas} at {optimizer.learning_rate:g} ({optimizer.decay}, "
        f"{optimizer.warmup_updates} warm-up updates), {evaluation.num_prompts} held-out prompts at temperature "
        f"{evaluation.temperature:g} every {evaluation.every_updates} updates; evaluations are taken out of both "
        f"clocks{left_in}, which begin when the untrained model was evaluated; a level counts as reached where no "
        "later evaluation falls below it, on a straight line between two evaluations"
    )


def _describe_ours(recipe: Recipe) -> str:
    return (
        f"rayzero: vLLM engine, {recipe.model.dtype} with fp32 masters, max_staleness "
        f"{recipe.training.max_staleness}; its checkpoints are in its seconds"
    )


def _plain(value: Any) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _end_of(curve: Curve) -> str:
    return f"{WORDS[curve.ended]} at {curve.last.accuracy:.1%}, {curve.last.seconds:.0f} s"


def _joined(cells: Iterable[str]) -> str:
    return " / ".join(cells)


def _cost(reached: Mapping[str, float] | None, by: str) -> str:
    return "–" if reached is None else f"{reached[by]:.0f}"


def _times(ratio: Mapping[str, Any] | None) -> str:
    """A bound below 1 leaves open who is ahead."""
    if ratio is None:
        return "–"
    return "open" if ratio["is_bound"] and ratio["value"] < 1 else str(SpeedRatio(**ratio))
