"""Requests of a batch start together and in order, however they arrive."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from rayzero.rollout_workers.batch_barrier import BatchBarrier
from rayzero.services.schema.messages import GroupBatch


class Engine:
    """Records what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        self.events.append("hold")
        yield
        self.events.append("go")

    def submit(self, name: int) -> Callable[[], Awaitable[int]]:
        async def call() -> int:
            self.events.append(str(name))
            return name

        return call


def batch(size: int) -> GroupBatch:
    return GroupBatch(batch_id="wave 1", size=size)


@pytest.mark.parametrize("arrival", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
async def test_a_batch_starts_as_a_whole_and_in_order(arrival: tuple[int, ...]) -> None:
    engine = Engine()
    gate: BatchBarrier[int] = BatchBarrier(engine.hold, patience_s=5.0)
    starts = []
    for name in arrival:
        starts.append(asyncio.create_task(gate.start(batch(3), name, engine.submit(name))))
        await asyncio.sleep(0.001)
    assert await asyncio.gather(*starts) == list(arrival)
    assert engine.events == ["hold", "1", "2", "3", "go"]


async def test_a_request_without_a_batch_starts_at_once() -> None:
    engine = Engine()
    gate: BatchBarrier[int] = BatchBarrier(engine.hold, patience_s=5.0)
    assert await gate.start(None, 7, engine.submit(7)) == 7
    assert engine.events == ["7"]


async def test_a_batch_that_stays_incomplete_starts_as_it_is_and_latecomers_follow() -> None:
    engine = Engine()
    gate: BatchBarrier[int] = BatchBarrier(engine.hold, patience_s=0.01)
    assert await gate.start(batch(2), 1, engine.submit(1)) == 1
    assert await gate.start(batch(2), 0, engine.submit(0)) == 0
    assert engine.events == ["hold", "1", "go", "0"]


async def test_nobody_waits_for_a_request_that_was_refused() -> None:
    engine = Engine()
    gate: BatchBarrier[int] = BatchBarrier(engine.hold, patience_s=60.0)
    starting = asyncio.create_task(gate.start(batch(2), 1, engine.submit(1)))
    gate.withdraw(batch(2))
    assert await asyncio.wait_for(starting, 1.0) == 1


async def test_one_that_gave_up_is_left_out() -> None:
    engine = Engine()
    gate: BatchBarrier[int] = BatchBarrier(engine.hold, patience_s=60.0)
    gone = asyncio.create_task(gate.start(batch(2), 0, engine.submit(0)))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.wait_for(gate.start(batch(2), 1, engine.submit(1)), 1.0) == 1
    assert engine.events == ["hold", "1", "go"]


async def test_an_engine_that_cannot_be_held_fails_the_batch() -> None:
    @asynccontextmanager
    async def hold() -> AsyncIterator[None]:
        raise RuntimeError("the engine is dead")
        yield

    gate: BatchBarrier[int] = BatchBarrier(hold, patience_s=5.0)
    engine = Engine()
    starts = [gate.start(batch(2), name, engine.submit(name)) for name in (0, 1)]
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert [str(result) for result in results] == ["the engine is dead"] * 2


async def test_every_batch_that_waits_is_kept_from_the_garbage_collector() -> None:
    engine = Engine()
    gate: BatchBarrier[int] = BatchBarrier(engine.hold, patience_s=0.02)
    batches = [GroupBatch(batch_id=f"batch {number}", size=2) for number in range(3)]
    starts = [asyncio.create_task(gate.start(each, 0, engine.submit(n))) for n, each in enumerate(batches)]
    await asyncio.sleep(0)
    gc.collect()
    assert len(gate._opening) == 3
    assert await asyncio.wait_for(asyncio.gather(*starts), 5.0) == [0, 1, 2]
    await asyncio.sleep(0)
    assert not gate._opening
