"""What is recorded of one update, a row of metrics.jsonl: its batch, its loss, its times and how stale it was."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rayzero.services.loop.batch_metrics import BatchFigures
from rayzero.services.loop.canary import Canary, check_kl
from rayzero.services.loop.episode_figures import episode_figures
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.length_bias import LengthBias
from rayzero.services.loop.weight_sync import SyncReport
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.messages import Group, UpdateResult

Row = dict[str, Any]
"""A line of metrics.jsonl, or a part of one."""


def batch_row(groups: Sequence[Group]) -> Row:
    """The part of an update's row that its groups alone say; touches nothing else, so that a thread may make it."""
    return BatchFigures.of(groups).row() | episode_figures(groups)


def update_row(
    groups: Sequence[Group],
    figures: Row,
    result: UpdateResult,
    report: SyncReport,
    buffer: GroupBuffer,
) -> Row:
    """The row of the update that made `result` of `groups`; `buffer` has not retired them yet.

    `figures`: the `batch_row` of the groups, and the seconds that were waited, updated and held.
    """
    version = result.policy_version
    staleness = [version - 1 - buffer.entries[group.group_id].oldest_version for group in groups]
    return {
        "update": version,
        **figures,
        **result.metrics,
        "sync_s": report.seconds,
        "sync_pause_s": report.pause_s,
        "sync_bytes": report.num_bytes,
        "sync_receive_s": report.receive_s,
        **({} if math.isnan(report.kl_canary) else {"kl_canary": report.kl_canary}),
        "staleness_mean": sum(staleness) / len(staleness),
        "staleness_max": max(staleness),
        "dropped_groups": sum(buffer.dropped.values()),
        "held_batches": buffer.num_held,
        "time_s": time.time(),
        "num_rollout_workers": report.num_workers,
        "warnings": list(result.warnings),
    }


def watch_update(
    row: Row,
    groups: Sequence[Group],
    report: SyncReport,
    lengths: LengthBias,
    canary: Canary,
    recipe: Recipe,
) -> RunHalted | None:
    """Add to the row what an update's groups and its sync say of the run's health; what ends the run, if anything."""
    warnings, halt = check_kl(
        report.kl_canary, canary.num_tokens, canary.recent, recipe.learner.watch, recipe.model.dtype
    )
    figures, shorter = lengths.on_update(groups)
    row |= figures
    row["warnings"] += [*warnings, *shorter]
    canary.learn(groups)
    return halt
