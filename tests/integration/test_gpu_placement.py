"""A Ray cluster of nodes that claim four GPUs each: who is placed where, what each sees, and what is refused."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import rayzero.learner.actor
import rayzero.rewards.actor
import rayzero.rollout_workers.actor
from rayzero.services.fleet.placement_groups import (
    GpuReservation,
    cluster_gpus,
    cluster_nodes,
    give_back_gpus,
    one_gpu_here,
)
from rayzero.services.run.placement import Placement
from rayzero.services.schema.errors import ActorStartError
from tests.models import build_tiny_model
from tests.unit.services.planning.test_memory_plan import recipe

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODES, GPUS_EACH, CPUS_EACH = 2, 4, 8
PATIENCE_S = 300.0
"""Of every wait: on a machine that is busy a process takes a minute to start."""
MARKED = {"learner": 1, "rollout": 2}
"""Named resources of the first node; the second has none of the learner's."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # As on a machine with GPUs: what the nodes and the driver see, an actor sees unless it is hidden.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    try:
        for resources in (MARKED, {"rollout": 2}):
            cluster.add_node(num_cpus=CPUS_EACH, num_gpus=GPUS_EACH, resources=resources, wait=False)
        cluster.wait_for_nodes(PATIENCE_S)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()
        monkeypatch.undo()


@dataclass(frozen=True)
class Place:
    """Where an actor sits and what it was given."""

    node: str
    gpus: tuple[str, ...]
    named: dict[str, float]
    environment: dict[str, str]
    started: tuple[Any, ...]


def seated() -> type:
    """An actor that knows where it sits and does nothing else; defined here, so that it travels by value."""

    class Seated:
        def __init__(self, *_: Any) -> None:
            self.started: tuple[Any, ...] = ()

        async def start(self, *arguments: Any) -> None:
            self.started = arguments

        async def meeting_point(self, world_size: int) -> Any:
            return world_size

        async def slot(self) -> tuple[Any, ...]:
            import os

            import ray

            context = ray.get_runtime_context()
            named = {name: amount for name, amount in context.get_assigned_resources().items() if name.islower()}
            gpus = tuple(sorted(map(str, ray.get_gpu_ids())))
            return context.get_node_id(), gpus, named, dict(os.environ), self.started

        async def serve_metrics(self, local: bool) -> str:
            return ""

        async def shutdown(self) -> None:
            pass

    return Seated


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rayzero.rollout_workers.actor, "RolloutActor", seated())
    monkeypatch.setattr(rayzero.learner.actor, "LearnerActor", seated())
    monkeypatch.setattr(rayzero.rewards.actor, "RewardActor", seated())
    monkeypatch.setattr(rayzero.rollout_workers.actor, "engine_environment", lambda settings: {})
    return build_tiny_model(tmp_path / "model")


def placement(model: Path, tmp_path: Path, **changes: Any) -> Placement:
    cluster = {"address": "auto", "gpu_memory_bytes": 79 * 2**30} | changes.pop("cluster", {})
    settings = recipe(cluster=cluster, deadlines={"actor_start_s": PATIENCE_S}, **changes)
    return Placement(settings, model, tmp_path, settings.rollout.device)  # type: ignore[arg-type]


async def slot(actor: Any) -> Place:
    return Place(*await actor.call("slot", deadline_s=PATIENCE_S))


async def end(*actors: Any) -> None:
    await asyncio.gather(*(actor.shutdown() for actor in actors))
    give_back_gpus()
    async with asyncio.timeout(PATIENCE_S):
        while ray.available_resources().get("GPU") != NODES * GPUS_EACH:
            await asyncio.sleep(0.05)


async def ranks_of(policy: Any) -> list[Place]:
    return [await slot(rank) for rank in policy._ranks]


async def test_tensor_parallel_groups_stay_on_a_node_and_a_replacement_takes_the_seat(
    model: Path, tmp_path: Path
) -> None:
    run = placement(model, tmp_path, rollout={"num_workers": 3, "tensor_parallel_size": 2}, cluster={"learner_gpus": 2})
    started: Any = asyncio.gather(run.learner(), *(run.rollout_worker(f"rollout-{i}") for i in range(3)))
    policy, *engines = await started
    ranks = await ranks_of(policy)
    assert len({rank.node for rank in ranks}) == 1, "a learner that fits one node is on one node"
    assert len({rank.gpus[0] for rank in ranks}) == 2
    assert [rank.started for rank in ranks] == [("cuda", rank, 2) for rank in range(2)]
    assert [rank.environment["OMP_NUM_THREADS"] for rank in ranks] == [str(CPUS_EACH // 2)] * 2
    slots = [await slot(engine) for engine in engines]
    assert all(len(place.gpus) == 2 for place in slots)
    taken = Counter((place.node, gpu) for place in (*ranks, *slots) for gpu in place.gpus)
    assert max(taken.values()) == 1 and len(taken) == 8
    await engines[1].shutdown()
    again = await run.rollout_worker("rollout-3")
    assert (await slot(again)).node == slots[1].node
    with pytest.raises(ActorStartError, match=r"2 GPUs were not free .*free: GPU 0, CPU \d+"):
        # Nothing is left in the cluster, and an engine added later needs two.
        slots_of_run = run._slots[0]
        object.__setattr__(
            slots_of_run, "_recipe", recipe(rollout={"tensor_parallel_size": 2}, deadlines={"actor_start_s": 0.5})
        )
        await slots_of_run.take("engine")
    await end(policy, engines[0], *engines[2:], again)


async def test_one_mark_of_a_node_is_enough_for_a_learner_that_fills_it(model: Path, tmp_path: Path) -> None:
    marks = {"learner_resources": {"learner": 1}, "rollout_resources": {"rollout": 1}}
    environment = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": 1}
    run = placement(
        model, tmp_path, rollout={"num_workers": 2},
        cluster={"learner_gpus": 3, "environment": environment, **marks},
    )  # fmt: skip
    starting = (run.rollout_worker(f"rollout-{number}") for number in range(2))
    policy, engines = await asyncio.gather(run.learner(), asyncio.gather(*starting))
    ranks, slots = await ranks_of(policy), [await slot(engine) for engine in engines]
    (marked,) = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("learner")]
    assert {rank.node for rank in ranks} == {marked}
    assert [rank.named for rank in ranks] == [{"learner": 0.3333}] * 3
    assert [place.named for place in slots] == [{"rollout": 1}] * 2
    for place in (*ranks, *slots):
        assert place.environment["NCCL_SOCKET_IFNAME"] == "lo" and place.environment["NCCL_IB_DISABLE"] == "1"
        assert place.environment["CUDA_VISIBLE_DEVICES"] == ",".join(place.gpus)
    await end(policy, *engines)
    with pytest.raises(ActorStartError, match=r"the run needs 5 GPUs on nodes with learner 1, and they have 4"):
        await placement(model, tmp_path, cluster={"learner_gpus": 5, **marks}).learner()
    with pytest.raises(ActorStartError, match=r"needs a node with judge 1, and no node has it.*rollout_resources"):
        await placement(model, tmp_path, cluster={"rollout_resources": {"judge": 1}}).rollout_worker("rollout-0")


async def test_learner_and_engine_share_one_gpu_and_a_mark_that_both_name(model: Path, tmp_path: Path) -> None:
    marks = {"learner_resources": {"rollout": 1}, "rollout_resources": {"rollout": 1}}
    run = placement(model, tmp_path, cluster={"colocate": "shared", **marks})
    both = await asyncio.gather(run.learner(), run.rollout_worker("rollout-0"))
    learner_place, engine_place = [await slot(actor) for actor in both]
    assert len(learner_place.gpus) == 1
    assert (engine_place.node, engine_place.gpus) == (learner_place.node, learner_place.gpus)
    assert learner_place.named == engine_place.named == {"rollout": 1}
    await end(*both)


async def test_ranks_and_engines_of_several_gpus_share_a_node_and_each_engine_sees_its_ranks_gpus(
    model: Path, tmp_path: Path
) -> None:
    run = placement(
        model, tmp_path, rollout={"num_workers": 2, "max_workers": 2, "tensor_parallel_size": 2},
        cluster={"learner_gpus": 4, "colocate": "sleep"}, training={"max_staleness": 0},
    )  # fmt: skip
    policy, *started = await asyncio.gather(run.learner(), *(run.rollout_worker(f"rollout-{i}") for i in range(2)))
    engines: list[Any] = started
    ranks, slots = await ranks_of(policy), [await slot(engine) for engine in engines]
    given = [rank.gpus[0] for rank in ranks]
    assert len({(rank.node, rank.gpus[0]) for rank in ranks}) == 4 and all(len(rank.gpus) == 1 for rank in ranks)
    seen = {(place.node, place.environment["CUDA_VISIBLE_DEVICES"]) for place in slots}
    assert seen == {(ranks[0].node, ",".join(given[:2])), (ranks[2].node, ",".join(given[2:]))}
    assert all(place.gpus == () for place in slots), "they are the ranks', as far as Ray knows"
    await engines[0].shutdown()
    again = await run.rollout_worker("rollout-2")
    assert (await slot(again)).environment["CUDA_VISIBLE_DEVICES"] == slots[0].environment["CUDA_VISIBLE_DEVICES"]
    await end(policy, engines[1], again)


async def test_reward_workers_have_the_gpus_they_reserved_and_see_no_others(model: Path, tmp_path: Path) -> None:
    on_gpus = {"num_workers": 2, "num_gpus_per_worker": 0.5}
    run = placement(model, tmp_path, reward=on_gpus, rollout={"device": "cpu"})
    workers = await asyncio.gather(*(run.reward_worker(f"reward-{i}") for i in range(2)))
    first, second = [await slot(worker) for worker in workers]
    assert first.environment["CUDA_VISIBLE_DEVICES"] == first.gpus[0]
    assert (first.node, first.gpus) == (second.node, second.gpus), "two halves of one GPU"
    added = await run.reward_worker("reward-2")
    assert (await slot(added)).environment["CUDA_VISIBLE_DEVICES"] in "0123"
    policy, engine = await asyncio.gather(run.learner(), run.rollout_worker("rollout-0"))
    plain = await placement(model, tmp_path).reward_worker("reward-3")
    for actor in (policy, engine, plain):
        place = await slot(actor)
        assert place.gpus == () and place.environment["CUDA_VISIBLE_DEVICES"] == "", "Ray hides nothing by itself"
    assert (await slot(policy)).started == ("cpu",)
    await end(*workers, added, policy, engine, plain)


async def test_a_child_of_the_driver_reserves_a_gpu_of_the_drivers_node(monkeypatch: pytest.MonkeyPatch) -> None:
    async with one_gpu_here(PATIENCE_S) as visible:
        assert visible == "", "the driver's node has none"
    (other, *_) = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")]
    monkeypatch.setattr(ray.get_runtime_context().__class__, "get_node_id", lambda self: other)
    async with one_gpu_here(PATIENCE_S) as visible:
        assert visible in {"0", "1", "2", "3"}
        assert ray.available_resources()["GPU"] == NODES * GPUS_EACH - 1
    await end()


async def test_what_no_node_can_hold_is_refused_at_once_or_after_the_wait() -> None:
    begun = time.monotonic()
    with pytest.raises(ActorStartError, match=r"an engine needs 8 GPUs on one node, and the largest node has 4"):
        await GpuReservation.reserve(recipe(rollout={"tensor_parallel_size": 8}), ("learner", "engine"))
    with pytest.raises(ActorStartError, match=r"the run needs 9 GPUs, and the cluster has 8"):
        await GpuReservation.reserve(recipe(rollout={"num_workers": 8}), ("learner", "engine"))
    assert time.monotonic() - begun < 5
    waiting = recipe(rollout={"num_workers": 8}, cluster={"wait_for_nodes_s": 1.0})
    begun = time.monotonic()
    with pytest.raises(ActorStartError, match="the run needs 9 GPUs"):
        await GpuReservation.reserve(waiting, ("learner", "engine"))
    assert time.monotonic() - begun > 1.0
    assert sorted(node.num_gpus for node in cluster_nodes()) == [0, 4, 4]
    assert cluster_gpus("auto") == NODES * GPUS_EACH
