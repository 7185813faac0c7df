"""What the control plane calls on its actors, each call once: the tables.

    Protocol (services/schema/interfaces.py)      what a call takes and gives, and what it is for
    table (here)                                  its deadline; the learner's: which ranks take it, what a failure means
    actor (learner/actor.py, …)                   the work

`services/fleet/remote.py`, `learner_ranks.py` and `learner_supervisor.py` are callers: each inherits the table and says
in one method, `take`, how a call of it is made. A caller has no `def` of its own for a call: this table is it. A new
call is a method of the Protocol, a line here and the actor's method; the type checker then finds what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from rayzero.services.schema.interfaces import EnvironmentWorker, LearnerHandle, RewardWorker, RolloutWorker

P = ParamSpec("P")
T = TypeVar("T")

DeadlineKey = Literal["group_s", "score_s", "update_s", "sync_s", "checkpoint_s"]
"""Which of the recipe's `deadlines` bounds a call."""


TRANSFER_GRACE_S = 20.0
"""In a transfer learner and engines wait for each other: cut off at the same moment, those that only waited for one
that hangs would be replaced with it."""


class AskedRanks(Enum):
    """Who takes a call where several learner actors share one model."""

    ALL = "all"
    """Every rank: it takes part in FSDP's collectives, and one rank alone would wait in them for ever."""
    FIRST = "first"
    """Rank 0: the transfer of weights is its alone."""


class OnFailure(Enum):
    """What a learner that dies or does not answer means for the call."""

    RAISE = "raise"
    """The caller gets the error, of the learner that there is: nothing waits for a new one."""
    RETRY = "retry"
    """A new learner is brought to the same version and takes the call again."""
    RESTART = "restart"
    """A new learner is brought up, but it is in no transfer: the caller gets LearnerRestarted and opens one anew."""


class Caller(Protocol):
    """Who makes the calls of a table."""

    async def take(self, call: Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one call and return what the actor gives."""
        ...


@dataclass(frozen=True, slots=True)
class Call(Generic[P, T]):
    """One call, as an attribute of a table: on an instance it is the bound coroutine function of the Protocol's
    signature, on the class the entry itself."""

    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
    """The Protocol's: gives name, parameters and result."""
    deadline: DeadlineKey
    ranks: AskedRanks = AskedRanks.ALL
    on_failure: OnFailure = OnFailure.RAISE
    grace_s: float = 0.0
    """What the actor is given beyond the deadline, which it keeps itself: it knows what went wrong."""
    shares_first: bool = False
    """Its first argument is large: where several ranks take the call, it goes to Ray's object store once, and each node
    fetches it once."""

    @property
    def name(self) -> str:
        """Of the actor's method."""
        return self.method.__name__

    def of(self, actor: object) -> Callable[P, Coroutine[Any, Any, T]]:
        """The same call of anything that has the Protocol's methods."""
        bound: Callable[P, Coroutine[Any, Any, T]] = getattr(actor, self.name)
        return bound

    @overload
    def __get__(self, caller: None, owner: type) -> Call[P, T]: ...

    @overload
    def __get__(self, caller: Caller, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, caller: Caller | None, owner: type) -> Call[P, T] | Callable[P, Coroutine[Any, Any, T]]:
        """The entry, or the call of one caller."""
        if caller is None:
            return self

        def bound(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
            return caller.take(self, *args, **kwargs)

        return bound


class RolloutCalls:
    """Calls on a rollout worker. A worker that fails one is replaced by its fleet."""

    generate = Call(RolloutWorker.generate, "group_s")
    abort = Call(RolloutWorker.abort, "sync_s")
    open_episode = Call(RolloutWorker.open_episode, "sync_s")
    turn = Call(RolloutWorker.turn, "group_s")
    close_episode = Call(RolloutWorker.close_episode, "sync_s")
    serve_episodes = Call(RolloutWorker.serve_episodes, "sync_s")
    watch_episode = Call(RolloutWorker.watch_episode, "group_s")
    logprobs = Call(RolloutWorker.logprobs, "group_s")
    join_transfer = Call(RolloutWorker.join_transfer, "sync_s", grace_s=TRANSFER_GRACE_S)
    receive_weights = Call(RolloutWorker.receive_weights, "sync_s", grace_s=TRANSFER_GRACE_S)
    apply_weights = Call(RolloutWorker.apply_weights, "sync_s")
    sleep = Call(RolloutWorker.sleep, "sync_s")
    wake = Call(RolloutWorker.wake, "sync_s")


class RewardCalls:
    """Calls on a reward worker. A worker that fails one is replaced by its fleet."""

    score = Call(RewardWorker.score, "score_s")


class EnvironmentCalls:
    """Calls on an environment worker. A worker that fails one is replaced by its fleet."""

    run_episode = Call(EnvironmentWorker.run_episode, "group_s")


class LearnerCalls:
    """Calls on the learner."""

    update = Call(LearnerHandle.update, "update_s", AskedRanks.ALL, OnFailure.RETRY, shares_first=True)
    logprobs = Call(LearnerHandle.logprobs, "update_s", AskedRanks.ALL, OnFailure.RETRY)
    # What supervised steps have learnt is in no checkpoint yet: a new learner could not go on with them.
    sft_step = Call(LearnerHandle.sft_step, "update_s", AskedRanks.ALL, OnFailure.RAISE, shares_first=True)
    end_sft = Call(LearnerHandle.end_sft, "update_s", AskedRanks.ALL, OnFailure.RAISE)
    save_checkpoint = Call(LearnerHandle.save_checkpoint, "checkpoint_s", AskedRanks.ALL, OnFailure.RETRY)
    load_checkpoint = Call(LearnerHandle.load_checkpoint, "checkpoint_s", AskedRanks.ALL, OnFailure.RETRY)
    prepare_weights = Call(LearnerHandle.prepare_weights, "sync_s", AskedRanks.ALL, OnFailure.RETRY)
    open_transfer = Call(LearnerHandle.open_transfer, "sync_s", AskedRanks.FIRST, OnFailure.RETRY)
    accept_transfer = Call(
        LearnerHandle.accept_transfer, "sync_s", AskedRanks.FIRST, OnFailure.RESTART, grace_s=TRANSFER_GRACE_S
    )
    # What is streamed is put together on the way, by all ranks.
    broadcast_weights = Call(
        LearnerHandle.broadcast_weights, "sync_s", AskedRanks.ALL, OnFailure.RESTART, grace_s=TRANSFER_GRACE_S
    )
    # A learner that is dead has aborted it already; who waits in the transfer finds out.
    abort_transfer = Call(LearnerHandle.abort_transfer, "sync_s", AskedRanks.FIRST, OnFailure.RAISE)
