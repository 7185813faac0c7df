"""Keeps a role's workers alive, spreads work over them by load, and replaces the dead. Plain asyncio.

spawn ─► STARTING ─► READY (rollout workers: JOINING until they hold the current weights) ─► SERVING ─► DEAD ─► spawn
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

from rayzero.services.fleet.lease_queue import LeaseQueue
from rayzero.services.fleet.load_limit import LoadLimit
from rayzero.services.fleet.slots import Seat, SeatState, W
from rayzero.services.schema.errors import ActorStartError, DeadlineError, RayzeroError, WorkerError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Fleet(Generic[W]):
    """The workers of one role.

    `spawn(name)` returns a started worker or raises `ActorStartError`. With `needs_weights` a new worker is JOINING
    until weight sync admits it. `limit` is how many leases one worker may hold at a time at most.
    """

    role: str
    spawn: Callable[[str], Awaitable[W]]
    limit: int
    needs_weights: bool = False
    max_restarts: int = 20
    """Restarts in a row without any work done in between, before the fleet gives up."""
    backoff_s: float = 1.0
    """Wait before a replacement that follows a failed one; doubles each time, up to a minute."""
    drain_s: float = 600.0
    """How long a worker that leaves may take to finish its groups; then they are handed over."""
    clock: Callable[[], float] = time.monotonic
    seats: list[Seat[W]] = field(default_factory=list)
    target: int = 0
    restarts: int = 0
    _started: bool = False
    _streak: int = 0
    _spawned: int = 0
    _leases: LeaseQueue[W] = field(default_factory=LeaseQueue)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    """Somebody changed its state. Leases do not count, except a leaving worker's."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def failure(self) -> RayzeroError | None:
        """Why the fleet has given up; None as long as it has not."""
        return self._leases.failure

    async def start(self, num_workers: int) -> None:
        """Spawn the first workers side by side; the first failure ends the start."""
        self.target = num_workers
        await asyncio.gather(*(self._fill(self._new_seat()) for _ in range(num_workers)))
        if self.failure is not None:
            raise self.failure
        self._started = True

    @asynccontextmanager
    async def lease(self, deadline_s: float, wanted: str = "", ahead: bool = False) -> AsyncIterator[Seat[W]]:
        """The worker called `wanted`, however busy, if it serves; else the least loaded, as soon as one has room.

        `ahead`: before all who wait without it.

        A `WorkerError` or `DeadlineError` that leaves the block costs the worker its seat: it is replaced.
        """
        seat = self._take(wanted) or await self._acquire(deadline_s, ahead)
        try:
            yield seat
            self._streak = 0
        except (WorkerError, DeadlineError) as error:
            self.fail(seat, error)
            raise
        finally:
            self._release(seat)

    def fail(self, seat: Seat[W], error: BaseException) -> None:
        """A worker is dead or cannot be trusted: take its seat and fill it anew."""
        if seat not in self.seats:
            return  # several groups were in flight on it: the first to fail has reported it
        self._remove(seat)
        logger.warning("%s %s failed and is replaced: %s", self.role, seat.name, error)
        if seat.worker is not None:
            self._background(seat.worker.shutdown())
        self.restarts += 1
        self._streak += 1
        if self._streak > self.max_restarts:
            last = f"{self.role} workers failed {self._streak} times in a row; the last: {error}"
            self._leases.fail(WorkerError(last))
        elif len(self.seats) < self.target:
            self._background(self._fill(self._new_seat(), self._backoff()))
        self._background(self._notify())

    async def admit(self, seat: Seat[W], policy_version: int) -> None:
        """The worker has proved that it holds this version: it serves."""
        seat.policy_version = policy_version
        if seat.state is SeatState.JOINING:
            self._move(seat, SeatState.SERVING)
        await self._notify()

    async def scale(self, num_workers: int) -> None:
        """Grow or shrink to `num_workers`; who leaves finishes its leases first. Idle and unready workers go first."""
        self.target = num_workers
        order = list(SeatState)
        leaving = sorted(
            self._staying(), key=lambda seat: (order.index(seat.state), seat.in_flight, -self.seats.index(seat))
        )
        for seat in leaving[: max(0, len(leaving) - num_workers)]:
            self._dismiss(seat)
            self._background(self._see_off(seat, self.drain_s))
        for seat in self.seats:
            holds_weights = seat.policy_version >= 0 or not self.needs_weights
            if len(self._staying()) < num_workers and seat.state is SeatState.DRAINING and holds_weights:
                self._move(seat, SeatState.SERVING)
        while len(self._staying()) < num_workers:
            self._background(self._fill(self._new_seat()))
        await self._notify()

    async def drain(self, name: str, deadline_s: float | None = None) -> None:
        """Let one worker finish its leases, end it, and fill its place anew. Returns when it has left."""
        seat = next((seat for seat in self.seats if seat.name == name), None)
        if seat is None:
            raise WorkerError(f"no {self.role} worker is called {name}")
        self._dismiss(seat)
        if len(self._staying()) < self.target:
            self._background(self._fill(self._new_seat()))
        await self._see_off(seat, self.drain_s if deadline_s is None else deadline_s)

    def joining(self) -> list[Seat[W]]:
        """Workers that are up but do not hold the current weights."""
        return [seat for seat in self.seats if seat.state is SeatState.JOINING]

    def serving(self) -> list[Seat[W]]:
        """Workers that work, those included that are about to leave."""
        return [seat for seat in self.seats if seat.state in (SeatState.SERVING, SeatState.DRAINING)]

    async def wait_for_joining(self) -> None:
        """Sleep until a worker is up that does not hold the current weights."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self.joining()))

    async def close(self) -> None:
        """End every worker."""
        self.target = 0
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = [seat.worker for seat in self.seats if seat.worker is not None]
        self.seats.clear()
        await asyncio.gather(*(worker.shutdown() for worker in workers), return_exceptions=True)

    def _staying(self) -> list[Seat[W]]:
        return [seat for seat in self.seats if seat.state is not SeatState.DRAINING]

    def _new_seat(self) -> Seat[W]:
        limit = LoadLimit(self.limit)
        seat: Seat[W] = Seat(f"{self.role}-{self._spawned}", self._spawned, limit=limit, since_s=self.clock())
        self._spawned += 1
        self.seats.append(seat)
        return seat

    def _remove(self, seat: Seat[W]) -> None:
        self.seats.remove(seat)
        seat.state = SeatState.GONE

    def _move(self, seat: Seat[W], state: SeatState) -> None:
        seat.state, seat.since_s = state, self.clock()
        self._leases.offer(seat)

    def _backoff(self) -> float:
        """A node that is gone, or a broken installation, must not use up the restarts within a second."""
        return 0.0 if self._streak <= 1 else min(60.0, self.backoff_s * 2 ** (self._streak - 2))

    async def _fill(self, seat: Seat[W], after_s: float = 0.0) -> None:
        if seat not in self.seats:
            return
        seat.filling = asyncio.current_task()
        try:
            if after_s > 0:
                await asyncio.sleep(after_s)
            worker = await self.spawn(seat.name)
        except (ActorStartError, WorkerError, DeadlineError) as error:
            if not self._started:
                self._leases.fail(error if isinstance(error, ActorStartError) else ActorStartError(str(error)))
            self.fail(seat, error)
            return
        finally:
            seat.filling = None
        seat.worker = worker
        self._move(seat, SeatState.JOINING if self.needs_weights else SeatState.SERVING)
        await self._notify()

    def _dismiss(self, seat: Seat[W]) -> None:
        """It gets no more work; one that is not up yet goes at once."""
        if seat.state is not SeatState.STARTING:
            self._move(seat, SeatState.DRAINING)
            return
        self._remove(seat)
        if seat.filling is not None:
            seat.filling.cancel()

    async def _see_off(self, seat: Seat[W], deadline_s: float) -> None:
        """A dismissed worker finishes what it holds, as long as the deadline allows, and is ended."""
        await self._notify()
        if seat in self.seats:
            await self._idle(seat, deadline_s)
        if seat in self.seats and seat.state is SeatState.DRAINING:
            # Out of its seat first: whoever holds a lease on it then fails, and carries its group to another worker.
            self._remove(seat)
            await self._notify()
            await seat.taken.shutdown()

    async def _idle(self, seat: Seat[W], deadline_s: float) -> None:
        """Until the worker holds nothing, is wanted again, or has had its time."""
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                await self._changed.wait_for(lambda: seat.in_flight == 0 or seat.state is not SeatState.DRAINING)
        except TimeoutError:
            logger.warning("%s leaves with %d groups in flight: they are handed over", seat.name, seat.in_flight)

    def _take(self, name: str) -> Seat[W] | None:
        """A lease on one worker, past the others who wait; None when it does not serve."""
        if not name:
            return None
        seat = next((seat for seat in self.seats if seat.name == name and seat.state is SeatState.SERVING), None)
        if seat is not None:
            seat.in_flight += 1
        return seat

    async def _acquire(self, deadline_s: float, ahead: bool) -> Seat[W]:
        """A lease on the least loaded worker that has room."""
        seat = await self._leases.acquire(deadline_s, ahead)
        if seat is not None:
            return seat
        states = ", ".join(f"{seat.name} {seat.state.value}" for seat in self.seats) or "none"
        raise WorkerError(f"no {self.role} worker was free for {deadline_s:g} s (workers: {states})")

    def _release(self, seat: Seat[W]) -> None:
        self._leases.release(seat)
        if seat.state is SeatState.DRAINING:
            self._background(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
