"""Who gets the next lease, on which worker: first come, first served, the least loaded worker first."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Generic

from rayzero.services.fleet.slots import Seat, SeatState, W
from rayzero.services.schema.errors import RayzeroError


@dataclass(slots=True)
class LeaseQueue(Generic[W]):
    """Those who wait sleep, each on a future: thousands of groups may wait for a few hundred workers."""

    failure: RayzeroError | None = None
    """Why nobody will ever be served again."""
    _free: list[tuple[tuple[float, float, int], Seat[W]]] = field(default_factory=list)
    """A heap of workers by load; entries that are no longer true are passed over."""
    _waiters: deque[asyncio.Future[Seat[W]]] = field(default_factory=deque)
    _ahead: deque[asyncio.Future[Seat[W]]] = field(default_factory=deque)
    """Those who go before all others who wait."""

    async def acquire(self, deadline_s: float, ahead: bool = False) -> Seat[W] | None:
        """A lease on the least loaded worker that has room; None when none had in time.

        `ahead`: before all who wait without it.

        Raises:
            RayzeroError: the `failure`.
        """
        waiter: asyncio.Future[Seat[W]] = asyncio.get_running_loop().create_future()
        (self._ahead if ahead else self._waiters).append(waiter)
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

    def release(self, seat: Seat[W]) -> None:
        """One lease less."""
        seat.in_flight -= 1
        self.offer(seat)

    def offer(self, seat: Seat[W]) -> None:
        """It may have room: hand it to who waits."""
        self._put(seat)
        self._hand_out()

    def fail(self, failure: RayzeroError) -> None:
        """Nobody will be served any more: say so to all who wait."""
        self.failure = failure
        self._hand_out()

    def _put(self, seat: Seat[W]) -> None:
        if seat.has_room:
            heapq.heappush(self._free, (seat.load, seat))

    def _hand_out(self) -> None:
        while waiters := self._ahead or self._waiters:
            if waiters[0].done():
                waiters.popleft()
                continue
            if self.failure is not None:
                waiters.popleft().set_exception(self.failure)
                continue
            seat = self._least_loaded()
            if seat is None:
                return
            seat.in_flight += 1
            self._put(seat)
            waiters.popleft().set_result(seat)

    def _least_loaded(self) -> Seat[W] | None:
        while self._free:
            load, seat = heapq.heappop(self._free)
            if seat.state is SeatState.SERVING and seat.has_room and load == seat.load:
                return seat
        return None
