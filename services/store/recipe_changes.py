"""What may be changed in a run that goes on: what it shows, how long it lasts and what it runs on, not what it learns.

A recipe is compared as it is resolved, so that a key which is new in rayzero, at its default, is no change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rayzero.services.schema.config.model import AUTO
from rayzero.services.schema.config.recipe import Recipe

FREE = (
    "description", "observe", "deadlines", "checkpoint", "evaluation", "learner.watch", "learner.compute",
    "training.max_group_attempts", "training.max_refills", "training.max_hours", "training.stop_at_accuracy",
    "rollout.num_workers", "rollout.min_workers", "rollout.max_workers", "rollout.concurrent_groups",
    "rollout.max_num_seqs", "rollout.max_num_batched_tokens", "rollout.kv_cache_bytes", "rollout.num_threads",
    "rollout.prefix_caching", "rollout.enforce_eager", "rollout.weight_loading",
    "rollout.canary_every_syncs", "rollout.canary_max_difference",
    "reward.num_workers", "reward.min_workers", "reward.max_workers", "reward.num_cpus_per_worker", "reward.max_asleep",
    "environment.num_workers", "environment.min_workers", "environment.max_workers",
    "environment.num_cpus_per_worker", "environment.concurrent_episodes",
    "cluster.address", "cluster.environment", "cluster.num_cpus", "cluster.object_store_bytes",
    "cluster.rollout_resources", "cluster.reward_resources", "cluster.learner_resources",
    "cluster.environment_resources", "cluster.weight_transport", "cluster.gpu_memory_bytes", "cluster.wait_for_nodes_s",
)  # fmt: skip
"""Keys, or the sections that hold them, that change no update."""
ENDS = ("training.num_updates", "training.stop_at_accuracy")
"""Keys that say when a run ends: a finished one goes on where one of them is raised."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key of a recipe."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.was!r} and is {self.now!r}"


def changes(old: Mapping[str, Any], new: Recipe) -> list[Change]:
    """Every key that differs between a run's recipe, as it was written down, and another."""
    with contextlib.suppress(ValidationError):  # of a version with other keys: these differ
        old = Recipe.model_validate(old).model_dump(mode="json")
    now = new.model_dump(mode="json")
    if new.model.dtype == AUTO:  # it keeps what the run has
        now["model"]["dtype"] = old.get("model", {}).get("dtype")
    return list(_compare(old, now, ""))


def refusal(change: Change, new: Recipe) -> str:
    """Why a run cannot go on with this change; empty when it can."""
    holds_out = new.data.held_out or new.data.num_held_out is not None
    if change.key == "evaluation.num_prompts" and not holds_out and bool(change.was) != bool(change.now):
        return f"{change}, and with 0 no prompt is held out of those that are trained on, else a tenth"
    if any(change.key == free or change.key.startswith(f"{free}.") for free in FREE):
        return ""
    if change.key == "training.num_updates":
        decay = new.learner.optimizer.decay
        if decay == "constant":
            return ""
        return f"{change}, and learner.optimizer.decay: {decay} makes every learning rate depend on it"
    return str(change)


def extends(found: list[Change]) -> bool:
    """Whether a finished run is to go on: it is to end later."""
    ends = [change for change in found if change.key in ENDS and change.was is not None]
    return any(change.now is None or change.now > change.was for change in ends)


def _compare(old: Any, new: Any, key: str) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _compare(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield Change(key, old, new)
