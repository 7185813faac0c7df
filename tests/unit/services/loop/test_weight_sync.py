"""Weight sync and fleet with scripted fakes: the order of events, and every way in which a worker can fail."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import SlotState
from rayzero.services.loop.canary import Canary
from rayzero.services.loop.weight_sync import WeightSync
from rayzero.services.schema.errors import (
    ActorStartError,
    DeadlineError,
    LearnerRestarted,
    TransferLost,
    WeightSyncError,
    WorkerError,
)
from rayzero.services.schema.interfaces import RolloutWorker
from rayzero.services.schema.weights import WeightManifest
from tests.fakes import Events, FakeLearner, FakeRolloutWorker, make_group
from tests.simulated_time import run_simulated


class Cluster:
    """A fleet of fakes and their learner."""

    def __init__(self, limit: int = 4) -> None:
        self.events = Events()
        self.workers: dict[str, FakeRolloutWorker] = {}
        self.learner = FakeLearner(self.events)
        self.spawn_failures: list[Exception] = []
        self.fleet: Fleet[RolloutWorker] = Fleet("rollout", self.spawn, limit, needs_weights=True)
        self.spawn_s = 0.0
        self.sync = WeightSync(self.learner, self.fleet, deadline_s=2.0, start_s=5.0)

    async def spawn(self, name: str) -> FakeRolloutWorker:
        self.events.append(f"{name}.spawn")
        await asyncio.sleep(self.spawn_s)
        if self.spawn_failures:
            raise self.spawn_failures.pop(0)
        self.workers[name] = FakeRolloutWorker(name, self.events)
        return self.workers[name]

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_first_broadcast_meets_then_sends_then_applies() -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    report = await cluster.sync.broadcast(0)
    assert report.num_workers == 2 and report.num_bytes == 100
    order = [event for event in cluster.events if not event.endswith("spawn")]
    assert order.index("learner.open") < order.index("rollout-0.join") < order.index("rollout-1.receive")
    assert order.index("learner.broadcast") < order.index("rollout-0.apply")
    assert [slot.state for slot in cluster.fleet.slots] == [SlotState.SERVING, SlotState.SERVING]


async def test_an_unchanged_group_is_not_met_again() -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    for version in range(3):
        await cluster.sync.broadcast(version)
    assert cluster.learner.num_transfers == 1
    assert {worker.version for worker in cluster.workers.values()} == {2}


@pytest.mark.parametrize("error", [WorkerError("died"), DeadlineError("hung"), WeightSyncError("digest differs")])
async def test_a_worker_that_fails_in_the_broadcast_is_replaced_and_the_others_go_on(error: Exception) -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    cluster.workers["rollout-0"].failures["receive"] = error
    report = await cluster.sync.broadcast(1)
    assert cluster.workers["rollout-1"].version == 1
    assert report.num_workers >= 1
    assert cluster.workers["rollout-0"].dead
    await cluster.settle()
    await cluster.sync.broadcast(2)
    assert cluster.workers["rollout-2"].version == 2
    assert cluster.learner.num_transfers >= 2


async def test_a_worker_that_cannot_apply_does_not_serve() -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    cluster.workers["rollout-1"].failures["apply"] = WeightSyncError("finish was skipped")
    report = await cluster.sync.broadcast(1)
    assert report.num_workers == 1
    assert "rollout-1" not in [slot.name for slot in cluster.fleet.serving()]


async def test_a_joining_worker_serves_only_after_a_sync() -> None:
    cluster = Cluster()
    await cluster.fleet.start(1)
    await cluster.sync.broadcast(0)
    await cluster.fleet.scale(2)
    await cluster.settle()
    assert [slot.name for slot in cluster.fleet.joining()] == ["rollout-1"]
    await cluster.sync.broadcast(1)
    assert len(cluster.fleet.serving()) == 2


@pytest.mark.parametrize("spawn_s", [4.0, 9.0])
def test_when_every_worker_is_lost_the_sync_waits_as_long_as_a_start_may_take(spawn_s: float) -> None:
    async def lose_all() -> int:
        cluster = Cluster()
        await cluster.fleet.start(1)
        await cluster.sync.broadcast(0)
        cluster.spawn_s = spawn_s
        cluster.workers["rollout-0"].failures["receive"] = WorkerError("died")
        return (await cluster.sync.broadcast(1)).num_workers

    if spawn_s < 5.0:
        assert run_simulated(lose_all()) == 1
    else:
        with pytest.raises(DeadlineError, match="waited 7 s for a rollout worker"):
            run_simulated(lose_all())


async def test_a_failed_broadcast_is_repeated_with_a_new_group() -> None:
    cluster = Cluster()
    await cluster.fleet.start(1)
    await cluster.sync.broadcast(0)
    cluster.learner.failures["broadcast"] = WeightSyncError("connection reset")
    await cluster.sync.broadcast(1)
    assert cluster.learner.num_transfers == 2
    assert cluster.workers["rollout-0"].version == 1


async def test_when_one_receiver_dies_nobody_waits_for_it_and_the_others_keep_their_seats() -> None:
    cluster = Cluster()
    await cluster.fleet.start(3)
    await cluster.sync.broadcast(0)
    aborted = asyncio.Event()
    original = cluster.learner.abort_transfer

    async def abort() -> None:
        await original()
        aborted.set()

    async def wait_until_aborted() -> NoReturn:
        await aborted.wait()
        raise WeightSyncError("the transfer broke off")

    cluster.learner.abort_transfer = abort  # type: ignore[method-assign]
    first = iter([wait_until_aborted])
    send, receive = cluster.learner.broadcast_weights, cluster.workers["rollout-2"].receive_weights

    async def broadcast() -> int:
        return await next(first, send)()

    waiting = iter([wait_until_aborted])

    async def receive_late(manifest: WeightManifest) -> None:
        await (waited() if (waited := next(waiting, None)) is not None else receive(manifest))

    cluster.learner.broadcast_weights = broadcast  # type: ignore[method-assign]
    cluster.workers["rollout-2"].receive_weights = receive_late  # type: ignore[method-assign]
    cluster.workers["rollout-0"].failures["receive"] = WorkerError("killed")
    async with asyncio.timeout(2.0):
        report = await cluster.sync.broadcast(1)
    assert cluster.events.count("learner.abort") == 1
    assert report.num_workers >= 2
    assert not cluster.workers["rollout-1"].dead and not cluster.workers["rollout-2"].dead
    assert cluster.workers["rollout-2"].version == 1


async def test_a_learner_that_was_started_anew_prepares_anew_and_costs_no_worker_its_seat() -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    cluster.learner.failures["broadcast"] = LearnerRestarted("killed")
    for worker in cluster.workers.values():
        worker.failures["receive"] = WeightSyncError("lost the learner")
    await cluster.sync.broadcast(1)
    assert cluster.events.count("learner.prepare") == 3
    assert list(cluster.workers) == ["rollout-0", "rollout-1"]


class Lossy(Cluster):
    """Its learner takes a while to fail, as one does that is started anew or goes through what is left of a stream."""

    def __init__(self, sent: list[Exception]) -> None:
        super().__init__()
        send = self.learner.broadcast_weights

        async def broadcast() -> int:
            if sent:
                await asyncio.sleep(0.05)
                raise sent.pop(0)
            return await send()

        self.learner.broadcast_weights = broadcast  # type: ignore[method-assign]

    def lose(self, *names: str) -> None:
        for name in names:
            self.workers[name].failures["receive"] = TransferLost("lost the learner")


async def test_receivers_that_see_the_learners_death_before_the_driver_keep_their_slots() -> None:
    cluster = Lossy([LearnerRestarted("killed")])
    await cluster.fleet.start(2)
    cluster.lose("rollout-0", "rollout-1")
    assert (await cluster.sync.broadcast(1)).num_workers == 2
    assert list(cluster.workers) == ["rollout-0", "rollout-1"]


async def test_a_receiver_that_loses_the_transfer_by_anothers_death_keeps_its_slot() -> None:
    cluster = Lossy([WeightSyncError("a receiver has died")])
    await cluster.fleet.start(2)
    cluster.lose("rollout-0")
    cluster.workers["rollout-1"].failures["receive"] = WorkerError("killed")
    await cluster.sync.broadcast(1)
    assert not cluster.workers["rollout-0"].dead and cluster.workers["rollout-1"].dead


async def test_a_transfer_that_breaks_twice_costs_the_first_that_lost_it() -> None:
    """Where no receiver died and none hangs, the way to one of them may be cut: the run must not end of it."""
    cluster = Lossy([WeightSyncError("connection reset"), WeightSyncError("connection reset")])
    await cluster.fleet.start(2)

    async def unreachable(manifest: WeightManifest) -> None:
        raise TransferLost("connection reset")

    cluster.workers["rollout-1"].receive_weights = unreachable  # type: ignore[method-assign]
    report = await cluster.sync.broadcast(1)
    assert report.num_workers >= 1 and cluster.sync.failures == 2
    assert cluster.workers["rollout-1"].dead and not cluster.workers["rollout-0"].dead


async def test_tensor_parallel_workers_take_as_many_ranks_as_they_have_receivers() -> None:
    cluster = Cluster()
    cluster.sync.ranks_per_worker = 2
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    assert [worker.rank for worker in cluster.workers.values()] == [1, 3]
    rendezvous = cluster.workers["rollout-0"].rendezvous
    assert rendezvous is not None and rendezvous.world_size == 5


async def test_a_worker_that_fails_the_canary_does_not_serve() -> None:
    cluster = Cluster()
    cluster.sync.canary = Canary(every_syncs=2, max_difference=0.01)
    cluster.sync.canary.learn([make_group(0)])
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(1)
    cluster.workers["rollout-0"].wrong_by = 0.5
    assert (await cluster.sync.broadcast(3)).num_workers == 2  # not due
    assert (await cluster.sync.broadcast(4)).num_workers == 1
    await cluster.settle()
    assert cluster.workers["rollout-0"].dead
    cluster.workers["rollout-2"].wrong_by = 0.5
    await cluster.sync.refit(4)  # due before it serves for the first time
    assert [slot.name for slot in cluster.fleet.serving()] == ["rollout-1"]


async def test_a_first_start_that_fails_names_the_cause() -> None:
    cluster = Cluster()
    cluster.spawn_failures = [ActorStartError("no GPU is free")]
    with pytest.raises(ActorStartError, match="no GPU is free"):
        await cluster.fleet.start(1)
    await cluster.fleet.close()


async def test_work_goes_to_the_least_loaded_and_waits_for_room() -> None:
    cluster = Cluster(limit=1)
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    async with cluster.fleet.lease(1.0) as first, cluster.fleet.lease(1.0) as second:
        assert {first.name, second.name} == {"rollout-0", "rollout-1"}
        with pytest.raises(WorkerError, match="no rollout worker was free"):
            async with cluster.fleet.lease(0.01):
                pass


async def test_who_goes_ahead_waits_for_nobody_who_does_not() -> None:
    cluster = Cluster(limit=1)
    await cluster.fleet.start(1)
    await cluster.sync.broadcast(0)
    served: list[str] = []

    async def wait(name: str, priority: bool) -> None:
        async with cluster.fleet.lease(1.0, priority=priority):
            served.append(name)

    async with cluster.fleet.lease(1.0):
        waiting = [asyncio.create_task(wait(name, name.isupper())) for name in ("a", "b", "A", "B")]
        await cluster.settle()
    await asyncio.gather(*waiting)
    assert served == ["A", "B", "a", "b"]


async def test_scaling_down_drains_before_it_ends_a_worker() -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    async with cluster.fleet.lease(1.0), cluster.fleet.lease(1.0) as leaving:
        assert leaving.name == "rollout-1"
        await cluster.fleet.scale(1)
        await cluster.settle()
        assert not cluster.workers["rollout-1"].dead
    await cluster.settle()
    assert cluster.workers["rollout-1"].dead
    assert [slot.name for slot in cluster.fleet.slots] == ["rollout-0"]


async def test_a_worker_that_leaves_before_it_is_up_is_not_started_at_all() -> None:
    cluster = Cluster()
    await cluster.fleet.start(1)
    await cluster.sync.broadcast(0)
    loading = asyncio.Event()

    async def spawn(name: str) -> FakeRolloutWorker:
        await loading.wait()
        return await cluster.spawn(name)

    cluster.fleet.spawn = spawn
    await cluster.fleet.scale(3)
    await cluster.settle()
    await cluster.fleet.scale(1)
    loading.set()
    await cluster.settle()
    assert list(cluster.workers) == ["rollout-0"]
    assert [slot.name for slot in cluster.fleet.slots] == ["rollout-0"]


async def test_a_leaving_worker_that_is_wanted_again_stays() -> None:
    cluster = Cluster()
    await cluster.fleet.start(2)
    await cluster.sync.broadcast(0)
    async with cluster.fleet.lease(1.0), cluster.fleet.lease(1.0):
        await cluster.fleet.scale(1)
        await cluster.fleet.scale(2)
    await cluster.settle()
    assert [slot.state for slot in cluster.fleet.slots] == [SlotState.SERVING] * 2
    assert list(cluster.workers) == ["rollout-0", "rollout-1"]


async def test_a_drained_worker_hands_its_groups_over_when_its_time_is_up() -> None:
    cluster = Cluster()
    await cluster.fleet.start(1)
    await cluster.sync.broadcast(0)
    async with cluster.fleet.lease(1.0):
        await cluster.fleet.drain("rollout-0", deadline_s=0.0)
        assert cluster.workers["rollout-0"].dead
    await cluster.settle()
    assert [slot.name for slot in cluster.fleet.joining()] == ["rollout-1"]


async def test_workers_that_keep_dying_end_the_fleet_with_the_cause() -> None:
    cluster = Cluster()
    cluster.fleet.max_restarts = 2
    cluster.fleet.backoff_s = 0
    await cluster.fleet.start(1)
    cluster.spawn_failures = [WorkerError("out of memory")] * 5
    cluster.fleet.fail(cluster.fleet.slots[0], WorkerError("killed"))
    await cluster.settle()
    assert cluster.fleet.failure is not None
    with pytest.raises(WorkerError, match="out of memory"):
        async with cluster.fleet.lease(1.0):
            pass
