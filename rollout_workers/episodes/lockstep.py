"""Turns of a wave of episodes start together and in one order: a synchronous run computes them the same each time.

An engine computes side by side, and floating-point sums depend on who stands beside whom. Environments answer when they
answer; turn k of a wave starts when every episode that still is in it asks for its next turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from rayzero.services.schema.messages import GroupBatch

logger = logging.getLogger(__name__)

Place = tuple[int, int]
"""(group_id, index) of an episode: its order within the wave."""

Submit = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class _WaveOfEpisodes:
    """Who is in it, and who asks."""

    num_expected: int
    """Episodes that have not come yet."""
    members: set[Place] = field(default_factory=set)
    asking: dict[tuple[Place, int], tuple[Submit, asyncio.Future[Any]]] = field(default_factory=dict)
    """By place, and by a number where an episode asks twice at a time."""
    num_asked: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def is_ready(self) -> bool:
        """All are here, and all ask."""
        return self.num_expected <= 0 and self.members <= {place for place, _ in self.asking}


class Lockstep:
    """`hold` keeps the engine from starting anything while its block runs."""

    def __init__(self, hold: Callable[[], AbstractAsyncContextManager[None]], patience_s: float) -> None:
        """After `patience_s` those who ask start without the others: better not reproducible than never."""
        self._hold, self._patience_s = hold, patience_s
        self._waves: dict[str, _WaveOfEpisodes] = {}
        self._starting: set[asyncio.Task[None]] = set()
        """Kept: the loop itself holds tasks weakly."""

    def join(self, wave: GroupBatch | None, place: Place) -> None:
        """An episode is in a wave of `wave.size`, from before its first turn on."""
        if wave is not None:
            known = self._of(wave)
            known.num_expected -= place not in known.members
            known.members.add(place)

    def withdraw(self, wave: GroupBatch | None) -> None:
        """One of a wave will never come."""
        if wave is not None:
            known = self._of(wave)
            known.num_expected -= 1
            self._look(wave.batch_id)

    def leave(self, wave: GroupBatch | None, place: Place) -> None:
        """An episode is over: the others need not wait for it."""
        if wave is not None and (known := self._waves.get(wave.batch_id)) is not None:
            known.members.discard(place)
            self._look(wave.batch_id)

    async def start(self, wave: GroupBatch | None, place: Place, submit: Submit) -> Any:
        """What `submit` returns, called when all of the wave ask for a turn, lowest place first."""
        known = None if wave is None else self._waves.get(wave.batch_id)
        if wave is None or known is None or place not in known.members:
            return await submit()
        known.num_asked += 1
        key = (place, known.num_asked)
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        known.asking[key] = (submit, waiter)
        if known.timer is None:
            known.timer = asyncio.get_running_loop().call_later(self._patience_s, self._go, wave.batch_id)
        self._look(wave.batch_id)
        try:
            return await waiter
        finally:
            known.asking.pop(key, None)

    def _of(self, wave: GroupBatch) -> _WaveOfEpisodes:
        return self._waves.setdefault(wave.batch_id, _WaveOfEpisodes(num_expected=wave.size))

    def _look(self, batch_id: str) -> None:
        """Start what is ready, forget what is over."""
        known = self._waves[batch_id]
        if known.asking and known.is_ready:
            self._go(batch_id)
        elif known.num_expected <= 0 and not known.members:
            del self._waves[batch_id]

    def _go(self, batch_id: str) -> None:
        """Start the turns of all who ask now."""
        known = self._waves.get(batch_id)
        if known is None:
            return
        if known.timer is not None:
            known.timer.cancel()
            known.timer = None
        if not known.is_ready:
            missing = max(0, known.num_expected) + len(known.members - {place for place, _ in known.asking})
            logger.warning("wave %s goes on without %d of its episodes", batch_id, missing)
            known.num_expected, known.members = 0, {place for place, _ in known.asking}
        asking, known.asking = known.asking, {}
        starting = asyncio.get_running_loop().create_task(self._start_all(asking))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _start_all(self, asking: dict[tuple[Place, int], tuple[Submit, asyncio.Future[Any]]]) -> None:
        try:
            async with self._hold():
                for _, (submit, waiter) in sorted(asking.items(), key=lambda item: item[0]):
                    if waiter.done():
                        continue  # its caller has given up
                    try:
                        result = await submit()
                    except Exception as error:
                        _settle(waiter, error=error)
                    else:
                        _settle(waiter, result)
        except Exception as error:
            for _, waiter in asking.values():
                _settle(waiter, error=error)


def _settle(waiter: asyncio.Future[Any], result: Any = None, error: Exception | None = None) -> None:
    if waiter.done():
        return
    if error is not None:
        waiter.set_exception(error)
    else:
        waiter.set_result(result)
