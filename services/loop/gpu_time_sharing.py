"""Learner and engine on one GPU by turns: the engine sleeps while the learner updates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import Seat
from rayzero.services.schema.errors import DeadlineError, WorkerError
from rayzero.services.schema.interfaces import RolloutWorker


@dataclass(frozen=True, slots=True)
class Turns:
    """An engine that does not fall asleep, or wake up, in time loses its seat like any that fails."""

    fleet: Fleet[RolloutWorker]
    are_taken: bool = False
    """Whether the recipe asks for it; otherwise nothing happens here."""

    @asynccontextmanager
    async def learner(self) -> AsyncIterator[None]:
        """The learner's turn: its update's own memory is free from here to the end of the block."""
        seats = self.fleet.serving() if self.are_taken else []
        await self._each(seats, wake=False)
        try:
            yield
        finally:
            await self._each([seat for seat in seats if seat in self.fleet.seats], wake=True)

    async def _each(self, seats: Sequence[Seat[RolloutWorker]], *, wake: bool) -> None:
        calls = [seat.taken.wake() if wake else seat.taken.sleep() for seat in seats]
        for seat, result in zip(seats, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(result, WorkerError | DeadlineError):
                self.fleet.fail(seat, result)
            elif isinstance(result, BaseException):
                raise result
