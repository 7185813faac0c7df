"""A run's GPUs on Ray, reserved: all of them or none, what belongs together on one node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import ray
import ray.util.scheduling_strategies

from rayzero.services.fleet.gpu_bundles import (
    ENGINE,
    LEARNER,
    REWARD,
    Bundle,
    Node,
    bundles_of,
    engine_bundle,
    fit,
    reward_bundle,
    share_of,
)
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.devices import VISIBLE_DEVICES
from rayzero.services.schema.errors import ActorStartError, RecipeError

_GROUPS: list[Any] = []
"""Placement groups of this process: a pipeline's next stage, on the same connection, needs their GPUs."""


class GpuReservation:
    """A run's reserved GPUs on Ray: one placement group for all that start with it, one for each worker added later."""

    def __init__(self, recipe: Recipe, group: Any, bundles: Sequence[Bundle]) -> None:
        self._recipe, self._group, self._bundles = recipe, group, bundles
        self._free = {
            role: [index for index, bundle in enumerate(bundles) if role in bundle.roles] for role in (ENGINE, REWARD)
        }
        self._shared = recipe.cluster.shares_gpu and recipe.cluster.learner_gpus == 1
        self._gpus_of_ranks: dict[int, str] = {}
        """GPUs as their node numbers them, by the learner's rank."""
        self._known = asyncio.Condition()

    @classmethod
    async def reserve(cls, recipe: Recipe, roles: Sequence[str]) -> GpuReservation:
        """Reserve all GPUs at once, or none.

        Raises:
            ActorStartError: the cluster cannot hold them (or does not within `cluster.wait_for_nodes_s`), or others
                keep them for longer than `deadlines.actor_start_s`.
        """
        # Of the nodes that may hold the learner: a larger one without its mark is of no use to it.
        suitable = [node.num_gpus for node in cluster_nodes() if node.offers(recipe.cluster.learner_resources)]
        bundles = bundles_of(recipe, roles, int(max(suitable, default=0)) or recipe.cluster.learner_gpus)
        return cls(recipe, await _placement_group(recipe, bundles), bundles)

    def learner_options(self, rank: int) -> dict[str, Any]:
        """Of one rank: ranks fill the learner's bundles in order, and share what a bundle has."""
        index, bundle = self._bundle_of(rank)
        marks = self._recipe.cluster.learner_resources
        if self._shared:
            return _in_bundle(self._group, index, 0.5, marks)
        return _in_bundle(self._group, index, 1, share_of(marks, int(bundle.num_gpus)))

    def learner_cores(self, rank: int) -> int:
        """Cores of the rank's node for each of the ranks there."""
        index, _ = self._bundle_of(rank)
        places = ray.util.placement_group_table(self._group)["bundles_to_node_id"]
        ranks = sum(
            bundle.num_gpus
            for other, bundle in enumerate(self._bundles)
            if LEARNER in bundle.roles and places[other] == places[index]
        )
        on_it = [node["Resources"].get("CPU", 1.0) for node in ray.nodes() if node["NodeID"] == places[index]]
        cores = next(iter(on_it), 1.0)
        return max(1, int(cores // ranks))

    async def share_gpus_of(self, gpus: Sequence[str]) -> None:
        """The GPUs that the learner's ranks, in order, were given: engines on the same ones are placed now."""
        async with self._known:
            self._gpus_of_ranks = dict(enumerate(gpus))
            self._known.notify_all()

    async def take(self, role: str) -> tuple[dict[str, Any], Callable[[], None]]:
        """Options of one engine or reward worker, and what gives its GPUs back. Beyond those that the run started with,
        GPUs of its own."""
        bundle = engine_bundle(self._recipe) if role == ENGINE else reward_bundle(self._recipe)
        size = 0.5 if self._shared and role == ENGINE else bundle.num_gpus
        free, marks = self._free[role], dict(bundle.resources)
        if free:
            index = free.pop(0)
            options = _in_bundle(self._group, index, size, marks)

            def give_back() -> None:
                free.append(index)

            if LEARNER in self._bundles[index].roles and not self._shared:
                try:
                    options |= {"num_gpus": 0, VISIBLE_DEVICES: await self._gpus_in(index)}
                except BaseException:
                    give_back()
                    raise
            return options, give_back
        group = await _placement_group(self._recipe, [bundle])
        return _in_bundle(group, 0, size, marks), lambda: ray.util.remove_placement_group(group)

    async def _gpus_in(self, index: int) -> str:
        """GPUs of the learner's ranks in a bundle, once the ranks are placed."""
        first = sum(int(bundle.num_gpus) for bundle in self._bundles[:index] if LEARNER in bundle.roles)
        ranks = range(first, first + int(self._bundles[index].num_gpus))
        deadline_s = self._recipe.deadlines.actor_start_s
        try:
            async with asyncio.timeout(deadline_s), self._known:
                await self._known.wait_for(lambda: all(rank in self._gpus_of_ranks for rank in ranks))
        except TimeoutError:
            raise ActorStartError(
                f"an engine shares the GPUs of the learner's ranks {ranks.start} to {ranks.stop - 1}, and they were "
                f"not placed within {deadline_s:g} s"
            ) from None
        return ",".join(self._gpus_of_ranks[rank] for rank in ranks)

    def _bundle_of(self, rank: int) -> tuple[int, Bundle]:
        for index, bundle in enumerate(self._bundles):
            if LEARNER in bundle.roles:
                if rank < bundle.num_gpus:
                    return index, bundle
                rank -= int(bundle.num_gpus)
        raise ActorStartError(f"no GPU is reserved for rank {rank} of the learner")


def cluster_nodes() -> tuple[Node, ...]:
    """The cluster's living nodes."""
    return tuple(
        Node(
            name=f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}",
            num_gpus=node["Resources"].get("GPU", 0.0),
            num_cpus=node["Resources"].get("CPU", 0.0),
            resources={name: amount for name, amount in node["Resources"].items() if not _is_rays_own(name)},
        )
        for node in ray.nodes()
        if node["Alive"]
    )


def cluster_gpus(address: str) -> int:
    """GPUs of a running Ray; connects for the question where this process is not connected.

    Raises:
        RecipeError: no Ray answers there.
    """
    is_guest = ray.is_initialized()
    try:
        if not is_guest:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        return int(ray.cluster_resources().get("GPU", 0))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RecipeError(
            f"rollout.device: auto depends on the GPUs of the Ray at {address}, and it does not answer "
            f"({str(error).strip().splitlines()[0]}): set it to cuda or cpu, or start the cluster"
        ) from None
    finally:
        if not is_guest:
            ray.shutdown()


@contextlib.asynccontextmanager
async def one_gpu_here(deadline_s: float) -> AsyncIterator[str]:
    """One GPU of the driver's own node while the block runs, for a child process: its CUDA_VISIBLE_DEVICES, empty
    where the node has no GPU.

    Raises:
        ActorStartError: others keep the node's GPUs for longer than `deadline_s`.
    """
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    if not node["Resources"].get("GPU"):
        yield ""
        return
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    holder = ray.remote(_Holder).options(num_cpus=0, num_gpus=1, scheduling_strategy=pinned).remote()
    try:
        try:
            visible = await asyncio.wait_for(asyncio.wrap_future(holder.visible.remote().future()), deadline_s)
        except TimeoutError:
            raise ActorStartError(
                f"no GPU of this machine was free within {deadline_s:g} s: wait for who has them, or end it"
            ) from None
        yield visible
    finally:
        ray.kill(holder)


class _Holder:
    """Has a GPU and does nothing with it."""

    def visible(self) -> str:
        return os.environ[VISIBLE_DEVICES]


async def _placement_group(recipe: Recipe, bundles: Sequence[Bundle]) -> Any:
    group = ray.util.placement_group([bundle.request for bundle in bundles], strategy="PACK")
    _GROUPS.append(group)
    begun = time.monotonic()
    try:
        while not group.wait(timeout_seconds=0):
            waited = time.monotonic() - begun
            if waited >= recipe.cluster.wait_for_nodes_s:
                fit(cluster_nodes(), bundles)
            if waited > recipe.cluster.wait_for_nodes_s + recipe.deadlines.actor_start_s:
                num_gpus = sum(bundle.num_gpus for bundle in bundles)
                raise ActorStartError(
                    f"{num_gpus:g} GPUs were not free within {waited:.0f} s, although "
                    f"the cluster has them (free: {_free(bundles)}): wait for who has the others, or end it"
                )
            await asyncio.sleep(0.1)
    except BaseException:
        ray.util.remove_placement_group(group)
        raise
    return group


def _free(bundles: Sequence[Bundle]) -> str:
    """What is free now of everything that the bundles ask for."""
    free = ray.available_resources()
    wanted = dict.fromkeys(name for bundle in bundles for name in bundle.request)
    return ", ".join(f"{name} {free.get(name, 0):g}" for name in wanted)


def _in_bundle(group: Any, index: int, num_gpus: float, resources: Mapping[str, float]) -> dict[str, Any]:
    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=index
    )
    return {"num_gpus": num_gpus, "resources": dict(resources), "scheduling_strategy": strategy}


def _is_rays_own(name: str) -> bool:
    kept = name in ("CPU", "GPU", "memory", "object_store_memory") or name.startswith(("node:", "accelerator_type:"))
    return kept or "_group_" in name  # what a placement group has reserved


def give_back_gpus() -> None:
    """Release everything that this process has reserved."""
    while _GROUPS:
        with contextlib.suppress(Exception):
            ray.util.remove_placement_group(_GROUPS.pop())
