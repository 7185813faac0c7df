"""Who may run now: a bounded number of runs on the CPU and a bounded sum of memory, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Gate:
    """Admits runs. A run found asleep gives its place on the CPU back (`park`), so that sleepers cost no healthy run
    its waiter."""

    def __init__(self, num_slots: int, memory_bytes: int) -> None:
        """At most `num_slots` runs that are not parked, and `memory_bytes` promised to all of them."""
        self._free_slots = num_slots
        self._free_bytes = memory_bytes
        self._capacity_bytes = memory_bytes
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, memory_bytes: int) -> Pass:
        """Wait for a place."""
        wanted = min(memory_bytes, self._capacity_bytes)
        if self._queue or not self._take(wanted):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append((wanted, waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.give_back(1, wanted)
                raise
        return Pass(self, wanted)

    def give_back(self, num_slots: int, memory_bytes: int) -> None:
        """Return places and admit whom they suffice for."""
        self._free_slots += num_slots
        self._free_bytes += memory_bytes
        while self._queue and (self._queue[0][1].done() or self._take(self._queue[0][0])):
            _, waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _take(self, memory_bytes: int) -> bool:
        if self._free_slots < 1 or self._free_bytes < memory_bytes:
            return False
        self._free_slots -= 1
        self._free_bytes -= memory_bytes
        return True


class Pass:
    """One run's place; leave it exactly once."""

    def __init__(self, gate: Gate, memory_bytes: int) -> None:
        """Made by `Gate.enter`."""
        self._gate = gate
        self._memory_bytes = memory_bytes
        self._parked = False

    def park(self) -> None:
        """Give the CPU place to another; the memory stays promised."""
        if not self._parked:
            self._parked = True
            self._gate.give_back(1, 0)

    def leave(self) -> None:
        """Give everything back."""
        self._gate.give_back(0 if self._parked else 1, self._memory_bytes)
