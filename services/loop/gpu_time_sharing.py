"""Learner and engine on one GPU by turns: the engine sleeps while the learner updates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import WorkerSlot
from rayzero.services.schema.errors import DeadlineError, WorkerError
from rayzero.services.schema.interfaces import RolloutWorker


@dataclass(frozen=True, slots=True)
class GpuTimeSharing:
    """An engine that does not fall asleep, or wake up, in time loses its slot like any that fails."""

    fleet: Fleet[RolloutWorker]
    are_taken: bool = False
    """Whether the recipe asks for it; otherwise nothing happens here."""

    @asynccontextmanager
    async def learner(self) -> AsyncIterator[None]:
        """The learner's turn: its update's own memory is free from here to the end of the block."""
        slots = self.fleet.serving() if self.are_taken else []
        await self._each(slots, wake=False)
        try:
            yield
        finally:
            await self._each([slot for slot in slots if slot in self.fleet.slots], wake=True)

    async def _each(self, slots: Sequence[WorkerSlot[RolloutWorker]], *, wake: bool) -> None:
        calls = [slot.live_worker.wake() if wake else slot.live_worker.sleep() for slot in slots]
        for slot, result in zip(slots, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(result, WorkerError | DeadlineError):
                self.fleet.fail(slot, result)
            elif isinstance(result, BaseException):
                raise result
