"""Lets the requests of a batch start together and in one order, whenever they arrive.

An engine computes requests side by side, and floating-point sums depend on who stands beside whom. Calls over a network
arrive in any order; a batch that waits here until it is whole starts the same way every time, and so computes the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rayzero.services.schema.messages import GroupBatch

logger = logging.getLogger(__name__)

T = TypeVar("T")

Submit = Callable[[], Awaitable[T]]


@dataclass(slots=True)
class _Waiting(Generic[T]):
    """A batch that is not whole yet."""

    complete: asyncio.Event = field(default_factory=asyncio.Event)
    members: dict[int, tuple[Submit[T], asyncio.Future[T]]] = field(default_factory=dict)
    num_withdrawn: int = 0


class BatchBarrier(Generic[T]):
    """`hold` keeps the engine from starting anything while its block runs."""

    def __init__(self, hold: Callable[[], AbstractAsyncContextManager[None]], patience_s: float) -> None:
        """After `patience_s` an incomplete batch starts as it is: better not reproducible than never."""
        self._hold, self._patience_s = hold, patience_s
        self._waiting: dict[str, _Waiting[T]] = {}
        self._started: dict[str, None] = {}
        self._opening: set[asyncio.Task[None]] = set()
        """One for each batch that waits. Kept: the loop itself holds tasks weakly, and a task that is collected would
        never start its batch."""

    async def start(self, batch: GroupBatch | None, position: int, submit: Submit[T]) -> T:
        """What `submit` returns, called when all of the batch are here, lowest `position` first."""
        if batch is None or batch.batch_id in self._started:
            return await submit()
        waiting = self._batch(batch)
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting.members[position] = (submit, waiter)
        self._check(batch, waiting)
        return await waiter

    def withdraw(self, batch: GroupBatch | None) -> None:
        """One of the batch will never start: the others need not wait for it."""
        if batch is not None and batch.batch_id not in self._started:
            waiting = self._batch(batch)
            waiting.num_withdrawn += 1
            self._check(batch, waiting)

    def _batch(self, batch: GroupBatch) -> _Waiting[T]:
        if batch.batch_id not in self._waiting:
            waiting = self._waiting[batch.batch_id] = _Waiting()
            opening = asyncio.get_running_loop().create_task(self._open(batch, waiting))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        return self._waiting[batch.batch_id]

    def _check(self, batch: GroupBatch, waiting: _Waiting[T]) -> None:
        if len(waiting.members) + waiting.num_withdrawn == batch.size:
            waiting.complete.set()

    async def _open(self, batch: GroupBatch, waiting: _Waiting[T]) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await waiting.complete.wait()
        except TimeoutError:
            logger.warning(
                "batch %s starts with %d of its %d groups: the others are late, and the run may not repeat bit for bit",
                batch.batch_id,
                len(waiting.members),
                batch.size,
            )
        del self._waiting[batch.batch_id]
        self._started[batch.batch_id] = None
        while len(self._started) > 100:
            del self._started[next(iter(self._started))]
        try:
            async with self._hold():
                for _, (submit, waiter) in sorted(waiting.members.items(), key=lambda item: item[0]):
                    await _release(submit, waiter)
        except Exception as error:
            for _, waiter in waiting.members.values():
                if not waiter.done():
                    waiter.set_exception(error)


async def _release(submit: Submit[T], waiter: asyncio.Future[T]) -> None:
    if waiter.done():
        return  # its caller has given up
    try:
        result = await submit()
    except Exception as error:
        if not waiter.done():
            waiter.set_exception(error)
        return
    if not waiter.done():
        waiter.set_result(result)
