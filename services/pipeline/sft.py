"""Supervised stages: the updates of services/run/supervised.py, checkpoints between them, a model at the end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rayzero.services.data.prompts import read_demonstrations
from rayzero.services.fleet.gpu_bundles import LEARNER
from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.directory import publish_model
from rayzero.services.planning.mixture import check_mixture
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.run.interrupts import ended_by_signals
from rayzero.services.run.placement import Placement
from rayzero.services.run.preflight import check_windows, compute_device, gpus_there
from rayzero.services.run.ray_session import RaySession
from rayzero.services.run.supervised import encode, supervised_updates
from rayzero.services.schema.config.pipeline import DistillStage, SftStage
from rayzero.services.schema.interfaces import LearnerHandle, SftExample
from rayzero.services.store.checkpoints import checkpoints_in
from rayzero.services.store.json_lines import read_lines

SAY_EVERY = 100


def run_sft(context: StageContext) -> StageOutcome:
    """Train on demonstrations; continue from the last checkpoint where there is one.

    Raises:
        RecipeError: a source holds no demonstrations, or one that is longer than the model's context.
        RayzeroError: the learner failed.
    """
    settings = context.settings
    assert isinstance(settings, SftStage | DistillStage)
    parts = [read_demonstrations(source, settings.completion_column) for source in settings.data]
    model_path = context.models[settings.model]
    shape = read_shape(model_path)
    check_windows(context.recipe, shape)
    check_mixture(context.recipe, shape)
    examples = encode(parts, settings.data, context.recipe, model_path)
    final = asyncio.run(_train(context, settings, examples, model_path))
    rows = read_lines(context.work / "metrics.jsonl")
    model = publish_model(final, context.directory / "model")
    figures = {
        "updates": settings.num_updates,
        "demonstrations": sum(len(part) for part in parts),
        "tokens": int(sum(row["tokens"] for row in rows)),
        "loss": float(np.mean([row["loss"] for row in rows[-20:]])),
        "curves": {"update": [row["update"] for row in rows], "loss": [row["loss"] for row in rows]},
    }
    return StageOutcome(artefact=model, figures=figures)


async def _train(
    context: StageContext, settings: SftStage | DistillStage, examples: Sequence[Sequence[SftExample]], model_path: Path
) -> Path:
    """All updates that are left; returns the last checkpoint."""
    start = latest(context.work)
    final = context.work / f"update_{settings.num_updates:06d}"
    if start == final:
        return final
    session = RaySession(context.recipe)
    learner: LearnerHandle | None = None
    try:
        await asyncio.to_thread(session.start)
        with ended_by_signals():
            logs = context.work / "logs"
            logs.mkdir(exist_ok=True)
            device = compute_device(context.recipe, gpus_there(context.recipe))
            learner = await Placement(context.recipe, model_path, logs, device, roles=(LEARNER,)).learner()
            done = 0
            if start is not None:
                await learner.load_checkpoint(str(start))
                done = int(start.name.removeprefix("update_"))
                context.say(f"continuing from {start.name}")
            await _updates(context, settings, examples, learner, done)
    finally:
        if learner is not None:
            await learner.shutdown()
        await asyncio.to_thread(session.stop)
    return final


async def _updates(
    context: StageContext,
    settings: SftStage | DistillStage,
    examples: Sequence[Sequence[SftExample]],
    learner: LearnerHandle,
    done: int,
) -> None:
    file = context.work / "metrics.jsonl"
    async for row in supervised_updates(learner, examples, settings.data, settings, context.recipe.seed, file, done):
        number, last = row["update"], row["update"] == settings.num_updates
        if number % SAY_EVERY == 0 or last:
            context.say(f"update {number} of {settings.num_updates}, loss {row['loss']:.3f}")
        if number % settings.checkpoint_every_updates == 0 or last:
            await _save(context.work, number, learner)


async def _save(work: Path, number: int, learner: LearnerHandle) -> None:
    """A checkpoint that appears whole; the one before it goes."""
    before = latest(work)
    temporary = work / f".update_{number:06d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    await learner.save_checkpoint(str(temporary))
    temporary.replace(work / f"update_{number:06d}")
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def latest(work: Path) -> Path | None:
    """The newest checkpoint."""
    return next(reversed(checkpoints_in(work)), None)
