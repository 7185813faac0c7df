"""When weights are broadcast, who holds which version, and how workers join and leave the transfer group.

One broadcast, every step with a deadline:

    learner.prepare ─► manifest ─► workers.receive (staging, generation goes on)  ┐
                                   learner.broadcast                              ┘─► workers.apply ─► receipt ─► admit

A worker that fails any step loses its seat (services/fleet.py replaces it) and the others go on. A failure during the
broadcast itself leaves the transfer group unusable, so it is met anew, without the dead, and the broadcast repeated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from services.fleet import Fleet, Seat
from services.schema.errors import DeadlineError, WeightSyncError, WorkerError
from services.schema.interfaces import Learner, RolloutWorker
from services.schema.messages import WeightManifest, WeightReceipt

logger = logging.getLogger(__name__)

WORKER_FAILURES = (WorkerError, DeadlineError, WeightSyncError)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """One broadcast, as the controller saw it."""

    policy_version: int
    num_workers: int
    num_bytes: int
    seconds: float
    """Update ready → every engine has acknowledged."""
    pause_s: float
    """Longest time an engine could not generate."""


@dataclass(slots=True)
class WeightSync:
    """Brings every rollout worker to the learner's version."""

    learner: Learner
    fleet: Fleet[RolloutWorker]
    deadline_s: float
    max_attempts: int = 3
    _members: tuple[Seat[RolloutWorker], ...] = ()
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def broadcast(self, policy_version: int) -> SyncReport:
        """Send the learner's current weights to all workers that are up; joining ones serve from here on.

        The caller sees to it that the learner's weights are those of `policy_version` until this returns.

        Raises:
            WeightSyncError: no worker holds the weights after `max_attempts` tries.
        """
        async with self._lock:
            start = time.monotonic()
            manifest = await self.learner.prepare_weights(policy_version)
            for attempt in range(1, self.max_attempts + 1):
                receipts = await self._attempt(manifest, [*self.fleet.serving(), *self.fleet.joining()])
                if receipts:
                    return SyncReport(
                        policy_version=policy_version,
                        num_workers=len(receipts),
                        num_bytes=manifest.num_bytes,
                        seconds=time.monotonic() - start,
                        pause_s=max(receipt.pause_s for receipt in receipts),
                    )
                logger.warning("sync of version %d reached no worker (attempt %d)", policy_version, attempt)
                await self._wait_for_a_worker()
            raise WeightSyncError(f"version {policy_version} reached no rollout worker in {self.max_attempts} attempts")

    async def refit(self, policy_version: int) -> None:
        """Bring joining workers alone to the current version; those that serve are not disturbed.

        Without this a run whose workers were all replaced would wait for groups that nobody may generate.
        """
        async with self._lock:
            if joining := self.fleet.joining():
                manifest = await self.learner.prepare_weights(policy_version)
                await self._attempt(manifest, joining)

    async def _attempt(self, manifest: WeightManifest, seats: Sequence[Seat[RolloutWorker]]) -> list[WeightReceipt]:
        members = tuple(seat for seat in seats if seat.worker is not None)
        if not members:
            return []
        if set(members) != set(self._members) and not await self._meet(members):
            return []
        receives = [seat.taken.receive_weights(manifest) for seat in members]
        received = await self._each([*receives, self.learner.broadcast_weights()])
        if not self._survivors(members, received):
            return []
        applied = await self._each([seat.taken.apply_weights(manifest.policy_version) for seat in self._members])
        receipts = []
        for seat, receipt in zip(self._members, applied, strict=True):
            if isinstance(receipt, WeightReceipt) and receipt.policy_version == manifest.policy_version:
                await self.fleet.admit(seat, manifest.policy_version)
                receipts.append(receipt)
            else:
                self.fleet.fail(seat, _as_error(receipt, f"{seat.name} did not acknowledge the version"))
        return receipts

    async def _meet(self, members: Sequence[Seat[RolloutWorker]]) -> bool:
        """Build the transfer group anew. A group that lost a member cannot be used: gloo and NCCL would hang in it."""
        self._members = ()
        rendezvous = await self.learner.open_transfer(len(members))
        joins = [seat.taken.join_transfer(rendezvous, rank) for rank, seat in enumerate(members, start=1)]
        *joined, accepted = await self._each([*joins, self.learner.accept_transfer()])
        for seat, result in zip(members, joined, strict=True):
            if isinstance(result, BaseException):
                self.fleet.fail(seat, result)
        if any(isinstance(result, BaseException) for result in (*joined, accepted)):
            return False
        self._members = tuple(members)
        return True

    async def _each(self, calls: Sequence[Awaitable[object]]) -> list[object]:
        """All calls at once; a worker's failure stands in the place of its result, anything else is raised."""
        results: list[object] = list(await asyncio.gather(*calls, return_exceptions=True))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, WORKER_FAILURES):
                raise result
        return results

    def _survivors(self, members: Sequence[Seat[RolloutWorker]], results: Sequence[object]) -> bool:
        """False when the broadcast must be repeated: somebody failed in it, and the group with them."""
        *received, sent = results
        healthy = True
        for seat, result in zip(members, received, strict=True):
            if isinstance(result, BaseException):
                self.fleet.fail(seat, result)
                healthy = False
        if isinstance(sent, BaseException) or not healthy:
            self._members = ()
            return False
        return True

    async def _wait_for_a_worker(self) -> None:
        """A replacement is on its way: wait for it rather than use up the attempts."""
        try:
            async with asyncio.timeout(self.deadline_s):
                while not self.fleet.serving() and not self.fleet.joining():
                    if self.fleet.failure is not None:
                        raise self.fleet.failure
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise DeadlineError(
                f"weight sync waited {self.deadline_s:g} s for a rollout worker, and none came up"
            ) from None


def _as_error(result: object, otherwise: str) -> BaseException:
    return result if isinstance(result, BaseException) else WeightSyncError(otherwise)
