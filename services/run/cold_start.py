"""The supervised start before the loop: a few updates on demonstrations, through the learner that GRPO will use."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rayzero.services.observe.progress import ProgressView
from rayzero.services.observe.text import as_clock
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.run.supervised import Demonstrations, encode, supervised_updates
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.interfaces import LearnerHandle
from rayzero.services.store.run_directory import RunDirectory


async def cold_start(
    learner: LearnerHandle,
    demonstrations: Demonstrations,
    recipe: Recipe,
    model_path: Path,
    directory: RunDirectory,
    progress: ProgressView,
) -> None:
    """Run all supervised updates; their figures go to cold_start.jsonl.

    Raises:
        RecipeError: a demonstration is longer than the model's context.
        RunHalted: a loss or gradient was not finite.
    """
    settings = recipe.cold_start
    assert settings is not None
    progress.say(f"cold start: reading {len(demonstrations)} demonstrations")
    sources, file = (settings.source,), directory.file("cold_start.jsonl")
    examples = await asyncio.to_thread(encode, [demonstrations], sources, recipe, model_path)
    rows: list[dict[str, float]] = []
    left = TimeLeft(settings.num_updates)
    async for row in supervised_updates(learner, examples, sources, settings, recipe.seed, file):
        rows.append({"update": row["update"], "time_s": time.time()})
        seconds = left.seconds(rows)
        ends = "" if seconds is None else f", {as_clock(seconds)} left of it"
        progress.set_phase(
            f"cold start: {row['update']} of {settings.num_updates} updates, loss {row['loss']:.3f}{ends}"
        )
    await learner.end_sft()
