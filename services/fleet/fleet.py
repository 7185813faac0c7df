"""Keeps a role's workers alive, spreads work over them by load, and replaces the dead. Plain asyncio.

spawn ─► STARTING ─► JOINING (rollout workers alone, until they hold the current weights) ─► SERVING ─► GONE ─► spawn
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
from rayzero.services.fleet.slots import SlotState, W, WorkerSlot
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
    slots: list[WorkerSlot[W]] = field(default_factory=list)
    target: int = 0
    restarts: int = 0
    _started: bool = False
    _streak: int = 0
    _spawned: int = 0
    _leases: LeaseQueue[W] = field(default_factory=LeaseQueue)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    """A worker changed its state. Leases do not count, except a leaving worker's."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def failure(self) -> RayzeroError | None:
        """Why the fleet has given up; None as long as it has not."""
        return self._leases.failure

    async def start(self, num_workers: int) -> None:
        """Spawn the first workers side by side; the first failure ends the start."""
        self.target = num_workers
        await asyncio.gather(*(self._fill(self._new_slot()) for _ in range(num_workers)))
        if self.failure is not None:
            raise self.failure
        self._started = True

    @asynccontextmanager
    async def lease(self, deadline_s: float, wanted: str = "", priority: bool = False) -> AsyncIterator[WorkerSlot[W]]:
        """The worker called `wanted`, however busy, if it serves; else the least loaded, as soon as one has room.

        `priority`: before all who wait without it.

        A `WorkerError` or `DeadlineError` that leaves the block costs the worker its slot: it is replaced.
        """
        slot = self._take(wanted) or await self._acquire(deadline_s, priority)
        try:
            yield slot
            self._streak = 0
        except (WorkerError, DeadlineError) as error:
            self.fail(slot, error)
            raise
        finally:
            self._release(slot)

    def fail(self, slot: WorkerSlot[W], error: BaseException) -> None:
        """A worker is dead or cannot be trusted: take its slot and fill it anew."""
        if slot not in self.slots:
            return  # several groups were in flight on it: the first to fail has reported it
        # Out of its slot before anything is awaited: no further lease may go to it.
        self._remove(slot)
        logger.warning("%s %s failed and is replaced: %s", self.role, slot.name, error)
        if slot.worker is not None:
            self._background(slot.worker.shutdown())
        self.restarts += 1
        self._streak += 1
        if self._streak > self.max_restarts:
            last = f"{self.role} workers failed {self._streak} times in a row; the last: {error}"
            self._leases.fail(WorkerError(last))
        elif len(self.slots) < self.target:
            self._background(self._fill(self._new_slot(), self._backoff()))
        self._background(self._notify())

    async def admit(self, slot: WorkerSlot[W], policy_version: int) -> None:
        """The worker has proved that it holds this version: it serves."""
        slot.policy_version = policy_version
        if slot.state is SlotState.JOINING:
            self._move(slot, SlotState.SERVING)
        await self._notify()

    async def scale(self, num_workers: int) -> None:
        """Grow or shrink to `num_workers`; who leaves finishes its leases first. Idle and unready workers go first."""
        self.target = num_workers
        order = list(SlotState)
        leaving = sorted(
            self._staying(), key=lambda slot: (order.index(slot.state), slot.in_flight, -self.slots.index(slot))
        )
        for slot in leaving[: max(0, len(leaving) - num_workers)]:
            self._dismiss(slot)
            self._background(self._see_off(slot, self.drain_s))
        for slot in self.slots:
            holds_weights = slot.policy_version >= 0 or not self.needs_weights
            if len(self._staying()) < num_workers and slot.state is SlotState.DRAINING and holds_weights:
                self._move(slot, SlotState.SERVING)
        while len(self._staying()) < num_workers:
            self._background(self._fill(self._new_slot()))
        await self._notify()

    async def drain(self, name: str, deadline_s: float | None = None) -> None:
        """Let one worker finish its leases, end it, and fill its place anew. Returns when it has left."""
        slot = next((slot for slot in self.slots if slot.name == name), None)
        if slot is None:
            raise WorkerError(f"no {self.role} worker is called {name}")
        self._dismiss(slot)
        if len(self._staying()) < self.target:
            self._background(self._fill(self._new_slot()))
        await self._see_off(slot, self.drain_s if deadline_s is None else deadline_s)

    def joining(self) -> list[WorkerSlot[W]]:
        """Workers that are up but do not hold the current weights."""
        return [slot for slot in self.slots if slot.state is SlotState.JOINING]

    def serving(self) -> list[WorkerSlot[W]]:
        """Workers that work, those included that are about to leave."""
        return [slot for slot in self.slots if slot.state in (SlotState.SERVING, SlotState.DRAINING)]

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
        workers = [slot.worker for slot in self.slots if slot.worker is not None]
        self.slots.clear()
        await asyncio.gather(*(worker.shutdown() for worker in workers), return_exceptions=True)

    def _staying(self) -> list[WorkerSlot[W]]:
        return [slot for slot in self.slots if slot.state is not SlotState.DRAINING]

    def _new_slot(self) -> WorkerSlot[W]:
        limit = LoadLimit(self.limit)
        slot: WorkerSlot[W] = WorkerSlot(
            f"{self.role}-{self._spawned}", self._spawned, limit=limit, since_s=self.clock()
        )
        self._spawned += 1
        self.slots.append(slot)
        return slot

    def _remove(self, slot: WorkerSlot[W]) -> None:
        self.slots.remove(slot)
        slot.state = SlotState.GONE

    def _move(self, slot: WorkerSlot[W], state: SlotState) -> None:
        slot.state, slot.since_s = state, self.clock()
        self._leases.offer(slot)

    def _backoff(self) -> float:
        """A node that is gone, or a broken installation, must not use up the restarts within a second."""
        return 0.0 if self._streak <= 1 else min(60.0, self.backoff_s * 2 ** (self._streak - 2))

    async def _fill(self, slot: WorkerSlot[W], after_s: float = 0.0) -> None:
        if slot not in self.slots:
            return
        slot.filling = asyncio.current_task()
        try:
            if after_s > 0:
                await asyncio.sleep(after_s)
            worker = await self.spawn(slot.name)
        except (ActorStartError, WorkerError, DeadlineError) as error:
            # At the start an actor that cannot come up is a mistake in the recipe or the machine: say so at once.
            if not self._started:
                self._leases.fail(error if isinstance(error, ActorStartError) else ActorStartError(str(error)))
            self.fail(slot, error)
            return
        finally:
            slot.filling = None
        slot.worker = worker
        self._move(slot, SlotState.JOINING if self.needs_weights else SlotState.SERVING)
        await self._notify()

    def _dismiss(self, slot: WorkerSlot[W]) -> None:
        """It gets no more work; one that is not up yet goes at once."""
        if slot.state is not SlotState.STARTING:
            self._move(slot, SlotState.DRAINING)
            return
        self._remove(slot)
        if slot.filling is not None:
            slot.filling.cancel()

    async def _see_off(self, slot: WorkerSlot[W], deadline_s: float) -> None:
        """A dismissed worker finishes what it holds, as long as the deadline allows, and is ended."""
        await self._notify()
        if slot in self.slots:
            await self._idle(slot, deadline_s)
        if slot in self.slots and slot.state is SlotState.DRAINING:
            # Out of its slot first: a task with a lease on it then fails, and its group goes to another worker.
            self._remove(slot)
            await self._notify()
            await slot.live_worker.shutdown()

    async def _idle(self, slot: WorkerSlot[W], deadline_s: float) -> None:
        """Until the worker holds nothing, is wanted again, or has had its time."""
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                await self._changed.wait_for(lambda: slot.in_flight == 0 or slot.state is not SlotState.DRAINING)
        except TimeoutError:
            logger.warning("%s leaves with %d groups in flight: they are handed over", slot.name, slot.in_flight)

    def _take(self, name: str) -> WorkerSlot[W] | None:
        """A lease on one worker, past the others who wait; None when it does not serve."""
        if not name:
            return None
        slot = next((slot for slot in self.slots if slot.name == name and slot.state is SlotState.SERVING), None)
        if slot is not None:
            slot.in_flight += 1
        return slot

    async def _acquire(self, deadline_s: float, priority: bool) -> WorkerSlot[W]:
        """A lease on the least loaded worker that has room."""
        slot = await self._leases.acquire(deadline_s, priority)
        if slot is not None:
            return slot
        states = ", ".join(f"{slot.name} {slot.state.value}" for slot in self.slots) or "none"
        raise WorkerError(
            f"no {self.role} worker was free for {deadline_s:g} s (workers: {states}); `rayzero scale` adds some"
        )

    def _release(self, slot: WorkerSlot[W]) -> None:
        self._leases.release(slot)
        if slot.state is SlotState.DRAINING:
            self._background(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
