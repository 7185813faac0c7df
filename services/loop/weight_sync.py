"""When weights are broadcast, who holds which version, and how workers join and leave the transfer group.

One broadcast, every step with a deadline:

    learner.prepare ─► manifest ─► workers.receive (staging, generation goes on)  ┐
                                   learner.broadcast                              ┘─► workers.apply ─► receipt ─► admit

A worker that fails any step loses its slot (services/fleet/fleet.py replaces it) and the others go on. A failure
during the broadcast itself leaves the transfer group unusable, so it is met anew, without the dead, and the broadcast
repeated. Before a new worker serves, and every so many syncs, a canary (services/loop/canary.py) proves that the
weights are in place.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Container, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import SlotState, WorkerSlot
from rayzero.services.loop.canary import Canary
from rayzero.services.schema.errors import (
    DeadlineError,
    LearnerRestarted,
    TransferLost,
    WeightSyncError,
    WorkerError,
)
from rayzero.services.schema.interfaces import LearnerHandle, RolloutWorker
from rayzero.services.schema.weights import WeightReceipt

logger = logging.getLogger(__name__)

WORKER_FAILURES = (WorkerError, DeadlineError, WeightSyncError)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """One broadcast, as the controller saw it."""

    policy_version: int
    num_workers: int
    num_bytes: int
    """Sent to each engine."""
    seconds: float
    """Update ready → every engine has acknowledged."""
    pause_s: float
    """Longest time an engine could not generate."""
    receive_s: float = 0.0
    """Longest time an engine took to receive and check the bytes, beside generation."""
    kl_canary: float = math.nan
    """k3-KL between learner and engine on tokens that both scored at this version; NaN where none did."""

    @classmethod
    def unsent(cls, policy_version: int) -> SyncReport:
        """Of weights that no engine took."""
        return cls(policy_version=policy_version, num_workers=0, num_bytes=0, seconds=0.0, pause_s=0.0)


@dataclass(slots=True)
class WeightSync:
    """Brings every rollout worker to the learner's version."""

    learner: LearnerHandle
    fleet: Fleet[RolloutWorker]
    deadline_s: float
    """Of one transfer."""
    start_s: float
    """A worker's start may take so long."""
    canary: Canary = field(default_factory=lambda: Canary(every_syncs=0, max_difference=1.0))
    ranks_per_worker: int = 1
    """Receivers in one engine: its tensor-parallel size."""
    max_attempts: int = 3
    failures: int = 0
    """Broadcasts that had to be repeated."""
    _members: tuple[WorkerSlot[RolloutWorker], ...] = ()
    _broken: frozenset[WorkerSlot[RolloutWorker]] = frozenset()
    """Workers that lost the transfer before this one, and none of them was to blame."""
    _num_bytes: int = 0
    _kl: float = math.nan
    """What the canary measured last."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def broadcast(self, policy_version: int) -> SyncReport:
        """Send the learner's current weights to all workers that are up; joining ones serve from here on.

        The caller sees to it that the learner's weights are those of `policy_version` until this returns.

        Raises:
            WeightSyncError: no worker holds the weights after `max_attempts` tries.
        """
        async with self._lock:
            start = time.monotonic()
            for attempt in range(1, self.max_attempts + 1):
                receipts = await self._attempt(policy_version, [*self.fleet.serving(), *self.fleet.joining()])
                if receipts:
                    return SyncReport(
                        policy_version=policy_version,
                        num_workers=len(receipts),
                        num_bytes=self._num_bytes,
                        seconds=time.monotonic() - start,
                        pause_s=max(receipt.pause_s for receipt in receipts),
                        receive_s=max(receipt.receive_s for receipt in receipts),
                        kl_canary=self._kl,
                    )
                self.failures += 1
                logger.warning("the weights of version %d reached no worker (attempt %d)", policy_version, attempt)
                await self._wait_for_a_worker()
            raise WeightSyncError(
                f"the new weights (version {policy_version}) reached no rollout worker in {self.max_attempts} "
                "attempts; logs/ of the run directory has the cause, in rollout-*.log and learner.log"
            )

    async def refit(self, policy_version: int) -> None:
        """Bring joining workers alone to the current version; those that serve are not disturbed.

        Without this a run whose workers were all replaced would wait for groups that no worker may generate.
        """
        async with self._lock:
            if joining := self.fleet.joining():
                await self._attempt(policy_version, joining)

    async def _attempt(self, policy_version: int, slots: Sequence[WorkerSlot[RolloutWorker]]) -> list[WeightReceipt]:
        members = tuple(slot for slot in slots if slot.worker is not None)
        if not members:
            return []
        # Anew at every attempt: a learner that died in the one before has nothing prepared.
        manifest = await self.learner.prepare_weights(policy_version)
        if set(members) != set(self._members) and not await self._meet(members):
            return []
        receives = [slot.live_worker.receive_weights(manifest) for slot in self._members]
        if not await self._together(self._members, receives, self._send()):
            return []
        self._broken = frozenset()
        applied = await self._each([slot.live_worker.apply_weights(policy_version) for slot in self._members])
        receipts = {}
        for slot, receipt in zip(self._members, applied, strict=True):
            # An engine that acknowledges another version would serve tokens whose staleness is wrong.
            if isinstance(receipt, WeightReceipt) and receipt.policy_version == policy_version:
                receipts[slot] = receipt
            else:
                self.fleet.fail(slot, _as_error(receipt, f"{slot.name} did not acknowledge the version"))
        return [receipts[slot] for slot in await self._admit(policy_version, list(receipts))]

    async def _send(self) -> None:
        self._num_bytes = await self.learner.broadcast_weights()

    async def _admit(
        self, policy_version: int, slots: Sequence[WorkerSlot[RolloutWorker]]
    ) -> list[WorkerSlot[RolloutWorker]]:
        """Workers that acknowledged the version serve it, unless the canary tells that they do not hold it."""
        due = self.canary.is_due(policy_version)
        tried = [slot for slot in slots if due or slot.state is SlotState.JOINING]
        problems, self._kl = await self.canary.try_all(self.learner, [slot.live_worker for slot in tried])
        if self.canary.always and not tried and slots:
            in_turn = slots[policy_version % len(slots)]
            self._kl = await self.canary.compare(self.learner, in_turn.live_worker)
        for slot, problem in zip(tried, problems, strict=True):
            if problem is not None:
                self.fleet.fail(slot, problem)
        admitted = [slot for slot in slots if slot in self.fleet.slots]
        for slot in admitted:
            await self.fleet.admit(slot, policy_version)
        return admitted

    async def _meet(self, members: Sequence[WorkerSlot[RolloutWorker]]) -> bool:
        """Build the transfer group anew. A group that lost a member cannot be used: gloo and NCCL would hang in it."""
        self._members = ()
        rendezvous = await self.learner.open_transfer(len(members) * self.ranks_per_worker)
        ranks = range(1, 1 + len(members) * self.ranks_per_worker, self.ranks_per_worker)
        joins = [slot.live_worker.join_transfer(rendezvous, rank) for rank, slot in zip(ranks, members, strict=True)]
        if await self._together(members, joins, self.learner.accept_transfer()):
            self._members = tuple(members)
        return bool(self._members)

    async def _together(
        self,
        slots: Sequence[WorkerSlot[RolloutWorker]],
        calls: Sequence[Coroutine[Any, Any, None]],
        sending: Coroutine[Any, Any, None],
    ) -> bool:
        """Receivers and learner at once; False when it must be repeated with a new group, because a receiver failed in
        it.

        The learner learns of the first failure, so that no receiver waits for a dead one until the deadline. What
        failed by itself loses its slot; receivers that only lost the transfer keep theirs.
        """
        # The sender is the last: a receiver that failed before it ended is a culprit, one that failed after it may
        # only have lost the transfer.
        tasks = [asyncio.ensure_future(call) for call in (*calls, sending)]
        sender, culprits = tasks[-1], set[asyncio.Future[None]]()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if not sender.done() and (culprits := {task for task in tasks if task.done() and task.exception()}):
                await self._each([self.learner.abort_transfer()])
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        *received, sent = await self._each(tasks)
        if not any(isinstance(result, BaseException) for result in (*received, sent)):
            return True
        self._members = ()
        failed = {slot: error for slot, error in zip(slots, received, strict=True) if isinstance(error, BaseException)}
        first = {slot for slot, task in zip(slots, tasks[:-1], strict=True) if task in culprits}
        for slot in self._to_blame(failed, first, sent):
            self.fleet.fail(slot, failed[slot])
        if isinstance(sent, LearnerRestarted):
            logger.warning("the transfer is repeated: %s", sent)
        return False

    def _to_blame(
        self, failed: Mapping[WorkerSlot[RolloutWorker], BaseException], first: Container[object], sent: object
    ) -> list[WorkerSlot[RolloutWorker]]:
        """Who loses its slot of those that `failed` in a transfer, some of them `first`; `sent` is how the learner
        ended."""
        guilty = [slot for slot, error in failed.items() if _failed_by_itself(error, slot in first, sent is None)]
        if guilty or isinstance(sent, LearnerRestarted):
            self._broken = frozenset()
        elif self._broken == failed.keys():
            # None is dead or hangs, and it broke off again: the way to the first that lost it may be cut.
            guilty = [slot for slot in failed if slot in first]
        else:
            self._broken = frozenset(failed)
        return guilty

    async def _each(self, calls: Sequence[Awaitable[object]]) -> list[object]:
        """All calls at once; a worker's failure stands in the place of its result, anything else is raised."""
        results: list[object] = list(await asyncio.gather(*calls, return_exceptions=True))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, WORKER_FAILURES):
                raise result
        return results

    async def _wait_for_a_worker(self) -> None:
        """A replacement is on its way: wait for it rather than use up the attempts. It may have a whole start before
        it: when every engine was lost, the run goes on with the first that is up again."""
        try:
            async with asyncio.timeout(self.start_s + self.deadline_s):
                while not self.fleet.serving() and not self.fleet.joining():
                    if self.fleet.failure is not None:
                        raise self.fleet.failure
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise DeadlineError(
                f"new weights waited {self.start_s + self.deadline_s:g} s for a rollout worker, and none came up; "
                "logs/ of the run directory has the cause, in rollout-*.log"
            ) from None


def _failed_by_itself(error: BaseException, first: bool, sent: bool) -> bool:
    """Whether a receiver loses its slot for an error: it is dead or hangs, the sender had no trouble, or it failed
    before all others and not because it lost them. Any other error may be of a transfer that the learner or another
    receiver broke: a learner's death is seen by its receivers first."""
    return isinstance(error, WorkerError | DeadlineError) or sent or (first and not isinstance(error, TransferLost))


def _as_error(result: object, otherwise: str) -> BaseException:
    return result if isinstance(result, BaseException) else WeightSyncError(otherwise)
