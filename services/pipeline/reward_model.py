"""The reward_model stage: labelled pairs ─► a process that trains the classifier ─► held-out accuracy ─► a model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rayzero.services.data.sources.registry import read_rows
from rayzero.services.fleet.placement_groups import one_gpu_here
from rayzero.services.pipeline.context import StageContext, StageOutcome
from rayzero.services.pipeline.directory import publish
from rayzero.services.run.preflight import compute_device, gpus_there
from rayzero.services.run.ray_session import RaySession
from rayzero.services.schema.config.pipeline import RewardModelStage
from rayzero.services.schema.devices import VISIBLE_DEVICES
from rayzero.services.schema.errors import DeadlineError, RayzeroError, RecipeError
from rayzero.services.schema.import_root import IMPORT_ROOT
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.run_directory import write_json

COLUMNS = ("prompt", "chosen", "rejected")


def run_reward_model(context: StageContext) -> StageOutcome:
    """Train, measure and keep a reward model.

    Raises:
        RayzeroError: the pairs do not stand, training failed, or it ranks too few held-out pairs rightly.
    """
    settings = context.settings
    assert isinstance(settings, RewardModelStage)
    pairs = context.work / "pairs.jsonl"
    append_lines(pairs, read_pairs(settings), replace=True)
    figures: dict[str, Any] = {}

    def fill(directory: Path) -> None:
        spec = {
            "model": str(context.models[settings.model]),
            "pairs": str(pairs),
            "work": str(context.work),
            "output": str(directory),
            "num_updates": settings.num_updates,
            "pairs_per_update": settings.pairs_per_update,
            "learning_rate": settings.learning_rate,
            "held_out_share": settings.held_out_share,
            "checkpoint_every_updates": settings.checkpoint_every_updates,
            "seed": context.recipe.seed,
        }
        figures.update(asyncio.run(_train(context, spec)))

    artefact = publish(context.directory / "reward_model", fill)
    if figures["accuracy"] < settings.min_accuracy:
        raise RayzeroError(
            f"the reward model ranks {figures['accuracy']:.1%} of {figures['held_out_pairs']} held-out pairs rightly, "
            f"less than min_accuracy = {settings.min_accuracy:.0%}: give it more pairs or updates"
        )
    return StageOutcome(artefact=artefact, figures=figures)


def read_pairs(settings: RewardModelStage) -> list[dict[str, str]]:
    """The labelled pairs.

    Raises:
        RecipeError: a row lacks one of the three texts, or both answers are the same.
    """
    pairs = []
    for row in read_rows(settings.pairs):
        pair = {name: row.values.get(name) for name in COLUMNS}
        for name, text in pair.items():
            if not isinstance(text, str) or not text:
                raise RecipeError(f"{row.origin}: column {name!r} must hold text: a pair has {', '.join(COLUMNS)}")
        if pair["chosen"] == pair["rejected"]:
            raise RecipeError(f"{row.origin}: chosen and rejected are the same: there is nothing to prefer")
        pairs.append({name: str(text) for name, text in pair.items()})
    return pairs


async def _train(context: StageContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Train on a GPU that is reserved for it, or on CPUs."""
    async with _reserved(context) as visible:
        write_json(context.work / "spec.json", {**spec, "device": "cuda" if visible else "cpu"})
        return await _run_process(context, context.work / "spec.json", visible)


@contextlib.asynccontextmanager
async def _reserved(context: StageContext) -> AsyncIterator[str]:
    """The CUDA_VISIBLE_DEVICES of the training process: a GPU of this machine where the recipe computes on GPUs."""
    recipe = context.recipe
    if compute_device(recipe, await asyncio.to_thread(gpus_there, recipe)) == "cpu":
        yield ""
        return
    session = RaySession(recipe)
    try:
        await asyncio.to_thread(session.start)
        async with one_gpu_here(recipe.deadlines.actor_start_s) as visible:
            if not visible:
                context.say("this machine has no GPU of the cluster's: the reward model is trained on CPUs, slowly")
            yield visible
    finally:
        await asyncio.to_thread(session.stop)


async def _run_process(context: StageContext, spec: Path, visible: str) -> dict[str, Any]:
    """Run the training process; a process that says nothing for too long is killed."""
    root = str(IMPORT_ROOT)
    search_path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    errors = context.work / "training.log"
    with open(errors, "wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rayzero.rewards.kinds.reward_model_training", str(spec),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            env={**os.environ, "PYTHONPATH": search_path, "OMP_WAIT_POLICY": "PASSIVE", VISIBLE_DEVICES: visible},
        )  # fmt: skip
        try:
            figures = await _follow(context, process)
            code = await asyncio.wait_for(process.wait(), 60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if figures is None:
        reason = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"exit code {code}"]
        raise RayzeroError(f"training the reward model failed: {reason[-1]}\n  its log: {errors}")
    return figures


async def _follow(context: StageContext, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """Its figures once it is done; none where it ended without."""
    assert process.stdout is not None
    limit = context.recipe.deadlines.stall_s
    while True:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), limit)
        except TimeoutError:
            raise DeadlineError(f"the reward model's training said nothing for {limit:g} s") from None
        if not line:
            return None
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a library's own message
        if "done" in row:
            figures: dict[str, Any] = row["done"]
            return figures
        context.say(f"update {row['update']}, loss {row['loss']:.3f}")
