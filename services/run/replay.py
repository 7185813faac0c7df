"""`rayzero replay RUN`: the learner alone, on a recorded run's rollouts. No engine, no rewards; the metrics must come
out as they were recorded. For debugging a loss, and as a proof that a run's figures are those of its data."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rayzero.services.fleet.gpu_bundles import LEARNER
from rayzero.services.observe.progress import ProgressView
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.run.cold_start import cold_start
from rayzero.services.run.placement import Placement
from rayzero.services.run.preflight import PreparedRun, prepare
from rayzero.services.run.ray_session import RaySession
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.interfaces import LearnerHandle
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.rollout_file import read_groups
from rayzero.services.store.run_directory import RunDirectory

COMPARED = ("loss", "grad_norm", "entropy", "kl_rollout", "learning_rate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One update replayed: the largest relative difference to what was recorded, and in which figure."""

    update: int
    relative: float
    figure: str


def replay(run: Path, num_updates: int | None, tolerance: float, as_json: bool) -> int:
    """Replay the first `num_updates` updates (all of them when None); 0 when every figure came out the same.

    Raises:
        UsageError: `run` is no run directory, or one of its rollout files is missing.
    """
    directory = RunDirectory(run)
    content = directory.recipe()
    rows = read_lines(directory.file("metrics.jsonl"))[:num_updates]
    if content is None or not rows:
        raise UsageError(
            f"{run} is not a run directory with at least one update: it needs recipe.yaml and metrics.jsonl"
        )
    recipe = validate_recipe(content, {}, default_origin=str(directory.file("recipe.yaml")))
    console = terminal(stderr=as_json)
    differences = asyncio.run(_replay(recipe, prepare(recipe), directory, rows, console))
    worst = max(differences, key=lambda difference: difference.relative)
    same = worst.relative <= tolerance
    if as_json:
        print(json.dumps({"updates": len(differences), "largest_difference": worst.relative, "same": same}))
    else:
        verdict = "[green]the same[/green]" if same else "[red]not the same[/red]"
        where = f"{worst.relative:.2g} ({worst.figure} of update {worst.update})" if worst.relative else "none at all"
        console.print(f"{len(differences)} updates replayed: {verdict}; largest relative difference: {where}")
    return 0 if same else 1


async def _replay(
    recipe: Recipe, prepared: PreparedRun, directory: RunDirectory, rows: list[dict[str, Any]], console: Console
) -> list[Difference]:
    session = RaySession(recipe)
    learner: LearnerHandle | None = None
    with (
        tempfile.TemporaryDirectory(prefix="rayzero-replay-") as scratch,
        ProgressView(console, TimeLeft(len(rows))) as progress,
    ):
        try:
            progress.say("starting the learner")
            await asyncio.to_thread(session.start)
            learner = await Placement(
                recipe, prepared.model_path, Path(scratch), prepared.device, roles=(LEARNER,)
            ).learner()
            if recipe.cold_start is not None:
                copy = RunDirectory(Path(scratch))
                await cold_start(learner, prepared.demonstrations, recipe, prepared.model_path, copy, progress)
            return [await _replay_update(learner, directory, row, progress) for row in rows]
        finally:
            if learner is not None:
                await learner.shutdown()
            await asyncio.to_thread(session.stop)


async def _replay_update(
    learner: LearnerHandle, directory: RunDirectory, row: dict[str, Any], progress: ProgressView
) -> Difference:
    file = directory.rollouts / f"update_{row['update']:06d}.jsonl"
    if not file.is_file():
        raise UsageError(
            f"{file} is missing: only updates whose rollouts were kept (observe.retention) can be replayed"
        )
    result = await learner.update(read_groups(file), row["update"])
    difference = compare(row, result.metrics)
    progress.set_phase(f"update {row['update']}: largest relative difference {difference.relative:.2g}")
    return difference


def compare(recorded: Mapping[str, Any], replayed: Mapping[str, float]) -> Difference:
    """The figure that differs most, relative to its recorded size."""
    sizes = {
        name: abs(replayed[name] - recorded[name]) / max(abs(recorded[name]), 1e-12)
        for name in COMPARED
        if recorded.get(name) is not None and replayed[name] != recorded[name]
    }
    worst = max(sizes, key=lambda name: sizes[name], default="")
    relative = sizes.get(worst, 0.0)
    return Difference(update=recorded["update"], relative=math.inf if math.isnan(relative) else relative, figure=worst)
