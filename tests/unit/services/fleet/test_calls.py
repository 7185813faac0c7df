"""The tables of calls agree with the Protocols, the actors and each other; every caller makes a call as they say."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from benchmarks.null_actors import NullEngine, NullLearner, NullRewards
from rayzero.learner.actor import LearnerActor
from rayzero.rewards.actor import RewardActor
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.fleet import learner_ranks
from rayzero.services.fleet.calls import (
    TRANSFER_GRACE_S,
    AskedRanks,
    Call,
    Caller,
    LearnerCalls,
    OnFailure,
    RewardCalls,
    RolloutCalls,
)
from rayzero.services.fleet.learner_ranks import LearnerRanks, first_of
from rayzero.services.fleet.learner_supervisor import LearnerSupervisor
from rayzero.services.fleet.remote import RemoteLearner
from rayzero.services.schema.config.training import DeadlineSettings
from rayzero.services.schema.errors import DeadlineError, WorkerError
from rayzero.services.schema.interfaces import LearnerHandle, RewardWorker, RolloutWorker
from tests.fakes import Events, FakeLearner, FakeRewardWorker, FakeRolloutWorker, make_group

TABLES = [
    (LearnerCalls, LearnerHandle, (LearnerActor, NullLearner, FakeLearner, LearnerSupervisor)),
    (RolloutCalls, RolloutWorker, (RolloutEngine, NullEngine, FakeRolloutWorker)),
    (RewardCalls, RewardWorker, (RewardActor, NullRewards, FakeRewardWorker)),
]


def calls_of(table: type) -> dict[str, Call[..., Any]]:
    return {name: call for name, call in vars(table).items() if isinstance(call, Call)}


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(("table", "protocol", "actors"), TABLES)
def test_a_table_has_every_call_of_its_protocol_and_the_actors_take_it(
    table: type, protocol: type, actors: tuple[type, ...]
) -> None:
    methods = {name for name, value in vars(protocol).items() if inspect.iscoroutinefunction(value)}
    assert set(calls_of(table)) == methods - {"shutdown"}
    for name, call in calls_of(table).items():
        assert call.name == name
        assert call.deadline in DeadlineSettings.model_fields
        for actor in actors:
            taken = getattr(actor, name)
            assert isinstance(taken, Call) or parameters(taken) == parameters(call.method), (actor, name)


def test_a_call_that_is_no_ranks_own_goes_to_all_of_them() -> None:
    own = {name for name, call in calls_of(LearnerCalls).items() if call.ranks is AskedRanks.FIRST}
    assert own == {"open_transfer", "accept_transfer", "abort_transfer"}


class Rank(RemoteLearner):
    """A rank that notes its calls; `fails` and `hangs` name the method that does."""

    def __init__(self, number: int, events: Events, fails: str = "", hangs: str = "") -> None:
        super().__init__(f"rank-{number}", None, DeadlineSettings())
        self.number, self.events, self.fails, self.hangs = number, events, fails, hangs
        self.pid = 100 + number

    async def call(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> Any:
        self.events.append(f"{self.number}.{method} {deadline_s:g}")
        if method == self.fails:
            raise WorkerError("gone")
        if method == self.hangs:
            await asyncio.sleep(3600)
        return self.number


async def test_all_ranks_or_the_first_take_a_call_each_with_its_deadline() -> None:
    events, deadlines = Events(), DeadlineSettings()
    learner: LearnerHandle = LearnerRanks([Rank(0, events), Rank(1, events)])
    assert learner.pid == 100 and learner.revivals == 0
    assert await learner.prepare_weights(3) == 0  # type: ignore[comparison-overlap]
    await learner.open_transfer(2)
    await learner.save_checkpoint(directory="somewhere")
    assert events == [
        f"0.prepare_weights {deadlines.sync_s:g}",
        f"1.prepare_weights {deadlines.sync_s:g}",
        f"0.open_transfer {deadlines.sync_s:g}",
        f"0.save_checkpoint {deadlines.checkpoint_s:g}",
        f"1.save_checkpoint {deadlines.checkpoint_s:g}",
    ]


async def test_who_waits_for_others_in_a_transfer_is_not_cut_off_with_the_one_that_hangs() -> None:
    """Learner and engines keep the deadline themselves, and say what they waited for."""
    graced = {call.name for table, _, _ in TABLES for call in calls_of(table).values() if call.grace_s > 0}
    assert graced == {"join_transfer", "receive_weights", "accept_transfer", "broadcast_weights"}
    events, deadlines = Events(), DeadlineSettings()
    await LearnerRanks([Rank(0, events), Rank(1, events)]).broadcast_weights()
    assert events == [f"{rank}.broadcast_weights {deadlines.sync_s + TRANSFER_GRACE_S:g}" for rank in (0, 1)]


async def test_a_batch_is_put_where_all_ranks_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[Any] = []

    async def in_object_store(value: Any) -> str:
        put.append(value)
        return f"reference {len(put)}"

    monkeypatch.setattr(learner_ranks, "in_object_store", in_object_store)
    given: list[Any] = []

    class Noting(Rank):
        async def call(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> Any:
            given.append(args)

    groups = [make_group(0)]
    learner = LearnerRanks([Noting(0, Events()), Noting(1, Events())])
    await learner.update(groups, 1)
    await learner.prepare_weights(1)
    assert put == [groups]
    assert given == [("reference 1", 1)] * 2 + [(1,)] * 2


async def test_the_first_rank_that_fails_ends_the_call_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_object_store(value: Any) -> Any:
        return value

    monkeypatch.setattr(learner_ranks, "in_object_store", in_object_store)
    events = Events()
    learner = LearnerRanks([Rank(0, events, hangs="update"), Rank(1, events, fails="update")])
    async with asyncio.timeout(5):
        with pytest.raises(WorkerError, match="gone"):
            await learner.update([make_group(0)], 1)


def test_one_rank_stands_for_itself() -> None:
    rank = Rank(0, Events())
    assert first_of([rank]) is rank
    with pytest.raises(WorkerError, match="no rank"):
        first_of([])


async def test_a_keeper_hands_on_the_failures_that_no_new_learner_can_mend(tmp_path: Any) -> None:
    events, learners = Events(), list[FakeLearner]()

    async def spawn() -> FakeLearner:
        learners.append(FakeLearner(events))
        return learners[-1]

    supervisor = LearnerSupervisor(spawn, tmp_path, tmp_path, backoff_s=0.0)
    with pytest.raises(WorkerError, match="has not started"):
        await supervisor.sft_step([], 0)
    assert (supervisor.pid, supervisor.node) == (None, "")
    await supervisor.start(None)
    learners[0].pid, learners[0].node = 7, "node"
    assert (supervisor.pid, supervisor.node) == (7, "node")
    learners[0].failures["sft"] = DeadlineError("hangs")
    with pytest.raises(DeadlineError):
        await supervisor.sft_step([], 0)
    assert supervisor.revivals == 0 and len(learners) == 1
    handed_on = {name for name, call in calls_of(LearnerCalls).items() if call.on_failure is OnFailure.RAISE}
    assert handed_on == {"sft_step", "end_sft", "abort_transfer"}


async def test_an_abort_does_not_wait_for_a_new_learner(tmp_path: Any) -> None:
    """The transfer that is to be aborted is the old one's: waiting for a new one would hold the sync up."""
    begun, learners = asyncio.Event(), list[FakeLearner]()

    async def spawn() -> FakeLearner:
        learners.append(FakeLearner(Events()))
        if len(learners) > 1:
            begun.set()
            await asyncio.sleep(3600)
        return learners[-1]

    supervisor = LearnerSupervisor(spawn, tmp_path, tmp_path, backoff_s=0.0)
    await supervisor.start(None)
    learners[0].failures["broadcast"] = WorkerError("gone")
    broadcast = asyncio.create_task(supervisor.broadcast_weights())
    await begun.wait()
    async with asyncio.timeout(5):
        await supervisor.abort_transfer()
    assert learners[0].events[-1] == "learner.abort"
    broadcast.cancel()


def test_a_table_is_read_on_the_class_and_called_on_an_instance() -> None:
    assert isinstance(RemoteLearner.update, Call)
    caller: Caller = Rank(0, Events())
    assert isinstance(caller, RemoteLearner) and callable(caller.update)
