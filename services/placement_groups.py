"""A run's GPUs on Ray, reserved: all of them or none, what belongs together on one node."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.util.scheduling_strategies

from services.gpu_seats import ENGINE, LEARNER, Bundle, Node, bundles_of, engine_bundle, fit
from services.schema.config.recipe import Recipe
from services.schema.errors import ActorStartError

_GROUPS: list[Any] = []
"""Placement groups of this process: a pipeline's next stage, on the same connection, needs their GPUs."""


class GpuSeats:
    """A run's reserved GPUs on Ray: one placement group for all that start with it, one for each engine added later."""

    def __init__(self, recipe: Recipe, group: Any, bundles: Sequence[Bundle]) -> None:
        self._recipe, self._group, self._bundles = recipe, group, bundles
        self._free = [index for index, bundle in enumerate(bundles) if ENGINE in bundle.roles]
        self._shared = recipe.cluster.shares_gpu

    @classmethod
    async def reserve(cls, recipe: Recipe, roles: Sequence[str]) -> GpuSeats:
        """Reserve all GPUs at once, or none.

        Raises:
            ActorStartError: the cluster cannot hold them (or does not within `cluster.wait_for_nodes_s`), or others
                keep them for longer than `deadlines.actor_start_s`.
        """
        largest = max((node.num_gpus for node in gpu_nodes()), default=0)
        bundles = bundles_of(recipe, roles, int(largest) or recipe.cluster.learner_gpus)
        return cls(recipe, await _placement_group(recipe, bundles), bundles)

    def learner_options(self, rank: int) -> dict[str, Any]:
        """Of one rank: ranks fill the learner's bundles in order."""
        for index, bundle in enumerate(self._bundles):
            if LEARNER in bundle.roles:
                if rank < bundle.num_gpus:
                    return _in_bundle(self._group, index, 0.5 if self._shared else 1)
                rank -= bundle.num_gpus
        raise ActorStartError(f"no GPU is reserved for rank {rank} of the learner")

    async def take_engine(self) -> tuple[dict[str, Any], Callable[[], None]]:
        """Options of one engine, and what gives its GPUs back. Beyond the run's first engines, GPUs of its own."""
        size = 0.5 if self._shared else self._recipe.rollout.tensor_parallel_size
        if self._free:
            index = self._free.pop(0)
            return _in_bundle(self._group, index, size), lambda: self._free.append(index)
        group = await _placement_group(self._recipe, [engine_bundle(self._recipe)])
        return _in_bundle(group, 0, size), lambda: ray.util.remove_placement_group(group)


def gpu_nodes() -> tuple[Node, ...]:
    """The cluster's living nodes."""
    return tuple(
        Node(
            name=f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}",
            num_gpus=node["Resources"].get("GPU", 0.0),
            num_cpus=node["Resources"].get("CPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


async def _placement_group(recipe: Recipe, bundles: Sequence[Bundle]) -> Any:
    group = ray.util.placement_group([bundle.request for bundle in bundles], strategy="PACK")
    _GROUPS.append(group)
    begun = time.monotonic()
    try:
        while not group.wait(timeout_seconds=0):
            waited = time.monotonic() - begun
            if waited >= recipe.cluster.wait_for_nodes_s:
                fit(gpu_nodes(), bundles)
            if waited > recipe.cluster.wait_for_nodes_s + recipe.deadlines.actor_start_s:
                free = ray.available_resources()
                raise ActorStartError(
                    f"{sum(bundle.num_gpus for bundle in bundles)} GPUs were not free within {waited:.0f} s, although "
                    f"the cluster has them: {free.get('GPU', 0):g} are; wait for who has the others, or end it"
                )
            await asyncio.sleep(0.1)
    except BaseException:
        ray.util.remove_placement_group(group)
        raise
    return group


def _in_bundle(group: Any, index: int, num_gpus: float) -> dict[str, Any]:
    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=index
    )
    return {"num_gpus": num_gpus, "scheduling_strategy": strategy}


def give_back_gpus() -> None:
    """Everything that this process has reserved, for whoever comes after it."""
    while _GROUPS:
        with contextlib.suppress(Exception):
            ray.util.remove_placement_group(_GROUPS.pop())
