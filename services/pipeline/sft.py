"""Supervised stages: demonstrations through the learner that GRPO uses, packed, loss on completions alone.

    sources ─► (prompt, completion) ─► tokens ─► batches in the seed's order ─► learner.sft_step ─► checkpoints ─► model

A resumed stage makes the same batches as an uninterrupted one: the order follows from the seed alone.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayzero.services.data.prompts import read_demonstrations
from rayzero.services.fleet.gpu_bundles import LEARNER
from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.directory import publish_model
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.run.cold_start import encode, rate_at
from rayzero.services.run.interrupts import ended_by_signals
from rayzero.services.run.placement import Placement
from rayzero.services.run.preflight import check_windows, compute_device, gpus_there
from rayzero.services.run.ray_session import RaySession
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.config.pipeline import DistillStage, SftStage
from rayzero.services.schema.errors import RayzeroError
from rayzero.services.schema.interfaces import LearnerHandle, SftExample
from rayzero.services.store.checkpoints import checkpoints_in
from rayzero.services.store.json_lines import append_lines, read_lines

SAY_EVERY = 100


def run_sft(context: StageContext) -> StageOutcome:
    """Train on demonstrations; continue from the last checkpoint where there is one.

    Raises:
        RayzeroError: a source holds no demonstrations, or the learner failed.
    """
    settings = context.settings
    assert isinstance(settings, SftStage | DistillStage)
    parts = [read_demonstrations(source, settings.completion_column) for source in settings.data]
    model_path = context.models[settings.model]
    check_windows(context.recipe, read_shape(model_path))
    template = context.recipe.rollout.prompt_template
    examples = [encode(part, template, model_path) for part in parts]
    _check_lengths(examples, settings.data, context.recipe.rollout.max_model_tokens)
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
    metrics = context.work / "metrics.jsonl"
    append_lines(metrics, [row for row in read_lines(metrics) if row["update"] <= done], replace=True)
    weights = [source.weight for source in settings.data]
    order = draws([len(part) for part in examples], weights, context.recipe.seed)
    size = settings.demonstrations_per_update
    rows: list[dict[str, Any]] = []
    for number in range(1, settings.num_updates + 1):
        batch = [examples[part][index] for part, index in (next(order) for _ in range(size))]
        if number <= done:
            continue
        figures = await learner.sft_step(batch, rate_at(number, settings))
        rows.append({"update": number, **figures})
        last = number == settings.num_updates
        if number % SAY_EVERY == 0 or last:
            context.say(f"update {number} of {settings.num_updates}, loss {figures['loss']:.3f}")
        if number % settings.checkpoint_every_updates == 0 or last:
            append_lines(metrics, rows)
            rows = []
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


def draws(sizes: Sequence[int], weights: Sequence[float], seed: int) -> Iterator[tuple[int, int]]:
    """(source, row) for ever: sources take turns by weight, each goes through its rows in a new order an epoch."""
    given = [0] * len(sizes)
    random = [np.random.default_rng([seed, part]) for part in range(len(sizes))]
    orders = [random[part].permutation(size) for part, size in enumerate(sizes)]
    while True:
        total = sum(given) + 1
        behind = [total * weight / sum(weights) - count for weight, count in zip(weights, given, strict=True)]
        part = behind.index(max(behind))
        position = given[part] % sizes[part]
        if position == 0 and given[part]:
            orders[part] = random[part].permutation(sizes[part])
        given[part] += 1
        yield part, int(orders[part][position])


def _check_lengths(parts: Sequence[Sequence[SftExample]], sources: Sequence[DataSource], limit: int) -> None:
    """A demonstration longer than the model's context would be learned in places it never writes to."""
    for part, source in zip(parts, sources, strict=True):
        for row, (prompt, completion) in enumerate(part, start=1):
            if len(prompt) + len(completion) > limit:
                raise RayzeroError(
                    f"row {row} of source {source.name} ({source.kind}) has {len(prompt) + len(completion)} tokens, "
                    f"more than rollout.max_model_tokens = {limit}: raise that, or shorten the row"
                )
