"""Who gets the next lease, on which worker: the least loaded one below its limit; first come, first served."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Generic

from rayzero.services.fleet.slots import W, WorkerSlot
from rayzero.services.schema.errors import RayzeroError


@dataclass(slots=True)
class LeaseQueue(Generic[W]):
    """Those who wait sleep, each on a future: thousands of groups may wait for a few hundred workers."""

    failure: RayzeroError | None = None
    """Why no lease will be given again."""
    _free: list[tuple[tuple[float, float, int], WorkerSlot[W]]] = field(default_factory=list)
    """A heap of workers by load; entries that are no longer true are passed over."""
    _most_free: int = 1024
    """Entries of the heap at which those that are not true any more are thrown away."""
    _waiters: deque[asyncio.Future[WorkerSlot[W]]] = field(default_factory=deque)
    _priority: deque[asyncio.Future[WorkerSlot[W]]] = field(default_factory=deque)
    """Those who go before all others who wait."""

    async def acquire(self, deadline_s: float, priority: bool = False) -> WorkerSlot[W] | None:
        """A lease on the least loaded worker that has room; None when none had in time.

        `priority`: before all who wait without it.

        Raises:
            RayzeroError: the `failure`.
        """
        if self.failure is not None:
            raise self.failure
        # Without a future and its timer, which cost more than all of this.
        if not self._waiters and not self._priority and (slot := self._least_loaded()) is not None:
            return slot
        waiter: asyncio.Future[WorkerSlot[W]] = asyncio.get_running_loop().create_future()
        (self._priority if priority else self._waiters).append(waiter)
        self._hand_out()
        try:
            async with asyncio.timeout(deadline_s):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # handed out in the moment in which it was given up
            if not isinstance(error, TimeoutError):
                raise
        return None

    def release(self, slot: WorkerSlot[W]) -> None:
        """One lease less."""
        slot.in_flight -= 1
        self.offer(slot)

    def offer(self, slot: WorkerSlot[W]) -> None:
        """It may have room: hand it to who waits."""
        self._put(slot)
        self._hand_out()

    def fail(self, failure: RayzeroError) -> None:
        """No lease will be given any more: every waiter fails with this."""
        self.failure = failure
        self._hand_out()

    def _put(self, slot: WorkerSlot[W]) -> None:
        if slot.has_capacity:
            heapq.heappush(self._free, (slot.load, slot))
            if len(self._free) > self._most_free:
                self._sweep()

    def _sweep(self) -> None:
        """Entries of loads that are rarely reached would gather for as long as a run takes."""
        true = {slot: load for load, slot in self._free if slot.has_capacity and load == slot.load}
        self._free = sorted(((load, slot) for slot, load in true.items()), key=lambda entry: entry[0])
        self._most_free = 2 * len(self._free) + 1024

    def _hand_out(self) -> None:
        while waiters := self._priority or self._waiters:
            if waiters[0].done():
                waiters.popleft()
                continue
            if self.failure is not None:
                waiters.popleft().set_exception(self.failure)
                continue
            slot = self._least_loaded()
            if slot is None:
                return
            waiters.popleft().set_result(slot)

    def _least_loaded(self) -> WorkerSlot[W] | None:
        """A lease on the least loaded worker, where one has room."""
        while self._free:
            load, slot = heapq.heappop(self._free)
            # Every change pushes a new entry: one whose load is no longer true has a successor in the heap.
            if slot.has_capacity and load == slot.load:
                slot.in_flight += 1
                self._put(slot)
                return slot
        return None
