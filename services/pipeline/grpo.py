"""Stages that are the loop of `rayzero train`: RL, and distillation on the student's own rollouts."""

from __future__ import annotations

import json
import shutil
from typing import Any

from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.directory import publish_model
from rayzero.services.run.preflight import prepare
from rayzero.services.run.run import INTERRUPTED, train_in
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory

CURVES = {
    "train_accuracy": "accuracy",
    "reward_mean": "reward",
    "reward/format": "format",
    "reward/language": "language",
    "kl_reference": "kl_reference",
}
"""Figures of metrics.jsonl that the report draws, and what it calls them."""

MIN_EVALUATIONS = 3
"""Of a curve on held-out prompts."""
ACCURACIES = ("accuracy", "greedy_accuracy")


def run_grpo(context: StageContext) -> StageOutcome:
    """Train; continue from the last checkpoint where there is one.

    Raises:
        RayzeroError: whatever ended the run early.
        KeyboardInterrupt: the user stopped it; the next attempt goes on from there.
    """
    recipe = context.recipe
    directory = RunDirectory(context.work / "run")
    if not directory.is_finished():
        resume = directory.has_checkpoint()
        if not resume:
            # What a killed attempt wrote before its first checkpoint would stand in the metrics twice.
            shutil.rmtree(directory.path, ignore_errors=True)
        prepared = prepare(recipe, say=context.say)
        if train_in(directory, recipe, prepared, resume, context.console) == INTERRUPTED:
            raise KeyboardInterrupt
    model = publish_model(directory.file("model"), context.directory / "model")
    held_out = held_out_curve(directory)
    summary = json.loads(directory.file("summary.json").read_text(encoding="utf-8"))
    keys = ("updates", "samples", "tokens", *(f"{kind}_{when}" for kind in ACCURACIES for when in ("before", "after")))
    return StageOutcome(
        artefact=model,
        figures={**{key: summary.get(key) for key in keys}, "curves": curves(directory), "held_out": held_out},
    )


def held_out_curve(directory: RunDirectory) -> dict[str, list[Any]] | None:
    """By update: accuracy and length on the held-out prompts; None where only both ends were measured."""
    rows = read_lines(directory.file("evaluations.jsonl"))
    if len(rows) < MIN_EVALUATIONS:
        return None
    names = {"update": "update", "accuracy": "accuracy", "length": "completion_tokens_mean"}
    return {name: [row.get(key) for row in rows] for name, key in names.items()}


def curves(directory: RunDirectory) -> dict[str, list[Any]]:
    """By update: what the report draws, of the training batches."""
    rows = read_lines(directory.file("metrics.jsonl"))
    found: dict[str, list[Any]] = {
        "update": [row["update"] for row in rows],
        "length": [row["completion_tokens"] / max(row["samples"], 1) for row in rows],
    }
    for key, name in CURVES.items():
        if rows and key in rows[0]:
            found[name] = [row.get(key) for row in rows]
    return found
