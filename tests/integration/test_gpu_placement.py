"""A Ray cluster of two nodes that claim four GPUs each: who is placed where, and what is refused."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import learner.actor
import rollout_workers.actor
from services.placement import Placement
from services.placement_groups import GpuSeats, give_back_gpus, gpu_nodes
from services.remote import RemoteActor
from services.schema.errors import ActorStartError
from tests.models import build_tiny_model
from tests.unit.services.test_memory_plan import recipe

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODES, GPUS_EACH = 2, 4


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            cluster.add_node(num_cpus=8, num_gpus=GPUS_EACH, wait=False)
        cluster.wait_for_nodes(60)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def seated() -> type:
    """An actor that knows where it sits and does nothing else; defined here, so that it travels by value."""

    class Seated:
        def __init__(self, *_: Any) -> None:
            self.started: tuple[Any, ...] = ()

        async def start(self, *arguments: Any) -> None:
            self.started = arguments

        async def meeting_point(self, world_size: int) -> Any:
            return world_size

        async def seat(self) -> tuple[str, list[str], tuple[Any, ...]]:
            import ray

            return ray.get_runtime_context().get_node_id(), sorted(ray.get_gpu_ids()), self.started

        async def serve_metrics(self, local: bool) -> str:
            return ""

        async def shutdown(self) -> None:
            pass

    return Seated


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rollout_workers.actor, "RolloutActor", seated())
    monkeypatch.setattr(learner.actor, "LearnerActor", seated())
    monkeypatch.setattr(rollout_workers.actor, "engine_environment", lambda settings: {})
    return build_tiny_model(tmp_path / "model")


def placement(model: Path, tmp_path: Path, **changes: Any) -> Placement:
    cluster = {"address": "auto", "gpu_memory_bytes": 79 * 2**30} | changes.pop("cluster", {})
    return Placement(recipe(cluster=cluster, deadlines={"actor_start_s": 60}, **changes), model, tmp_path, num_gpus=9)


async def seat(actor: RemoteActor) -> tuple[str, list[str], tuple[Any, ...]]:
    where: tuple[str, list[str], tuple[Any, ...]] = await actor.call("seat", deadline_s=20)
    return where


async def end(*actors: RemoteActor) -> None:
    await asyncio.gather(*(actor.shutdown() for actor in actors))
    give_back_gpus()
    async with asyncio.timeout(20):
        while ray.available_resources().get("GPU") != NODES * GPUS_EACH:
            await asyncio.sleep(0.05)


async def test_tensor_parallel_groups_stay_on_a_node_and_a_replacement_takes_the_seat(
    model: Path, tmp_path: Path
) -> None:
    run = placement(model, tmp_path, rollout={"num_workers": 3, "tensor_parallel_size": 2}, cluster={"learner_gpus": 2})
    policy, *engines = await asyncio.gather(run.learner(), *(run.rollout_worker(f"rollout-{i}") for i in range(3)))
    ranks = [await seat(rank) for rank in policy._ranks]  # type: ignore[attr-defined]
    assert len({node for node, _, _ in ranks}) == 1, "a learner that fits one node is on one node"
    assert len({gpus[0] for _, gpus, _ in ranks}) == 2
    assert [started for _, _, started in ranks] == [(rank, 2) for rank in range(2)]
    seats = [await seat(engine) for engine in engines]
    assert all(len(gpus) == 2 for _, gpus, _ in seats)
    taken = Counter((node, gpu) for node, gpus, _ in (*ranks, *seats) for gpu in gpus)
    assert max(taken.values()) == 1 and len(taken) == 8
    await engines[1].shutdown()
    again = await run.rollout_worker("rollout-3")
    assert (await seat(again))[0] == seats[1][0]
    with pytest.raises(ActorStartError, match="GPUs were not free"):
        # Nothing is left in the cluster, and an engine added later needs two.
        seats_of_run = run._seats[0]
        object.__setattr__(
            seats_of_run, "_recipe", recipe(rollout={"tensor_parallel_size": 2}, deadlines={"actor_start_s": 0.5})
        )
        await seats_of_run.take_engine()
    await end(policy, engines[0], *engines[2:], again)


async def test_learner_and_engine_share_one_gpu(model: Path, tmp_path: Path) -> None:
    run = placement(model, tmp_path, cluster={"colocate": "shared"})
    both = await asyncio.gather(run.learner(), run.rollout_worker("rollout-0"))
    (node, gpus, _), other = [await seat(actor) for actor in both]
    assert len(gpus) == 1
    assert other[:2] == (node, gpus)
    await end(*both)


async def test_what_no_node_can_hold_is_refused_at_once_or_after_the_wait() -> None:
    begun = time.monotonic()
    with pytest.raises(ActorStartError, match=r"an engine needs 8 GPUs on one node, and the largest node has 4"):
        await GpuSeats.reserve(recipe(rollout={"tensor_parallel_size": 8}), ("learner", "engine"))
    with pytest.raises(ActorStartError, match=r"the run needs 9 GPUs, and the cluster has 8"):
        await GpuSeats.reserve(recipe(rollout={"num_workers": 8}), ("learner", "engine"))
    assert time.monotonic() - begun < 5
    waiting = recipe(rollout={"num_workers": 8}, cluster={"wait_for_nodes_s": 1.0})
    begun = time.monotonic()
    with pytest.raises(ActorStartError, match="the run needs 9 GPUs"):
        await GpuSeats.reserve(waiting, ("learner", "engine"))
    assert time.monotonic() - begun > 1.0
    assert sorted(node.num_gpus for node in gpu_nodes()) == [0, 4, 4]
