"""Turns of a wave start together, in one order, and never wait for what will not come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rayzero.rollout_workers.episodes.lockstep import Lockstep
from rayzero.services.schema.messages import GroupBatch

WAVE = GroupBatch(batch_id="wave", size=3)
PLACES = [(1, 0), (1, 1), (2, 0)]


class Engine:
    """Notes in which order turns start, and when it is held."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        self.events.append("hold")
        yield
        self.events.append("release")

    async def begin(self, place: tuple[int, int]) -> tuple[int, int]:
        await asyncio.sleep(0)
        self.events.append(place)
        return place


@pytest.fixture
def engine() -> Engine:
    return Engine()


def ask(lockstep: Lockstep, engine: Engine, place: tuple[int, int]) -> asyncio.Task[Any]:
    return asyncio.create_task(lockstep.start(WAVE, place, lambda: engine.begin(place)))


async def test_a_turn_starts_when_all_of_the_wave_ask_lowest_place_first(engine: Engine) -> None:
    lockstep = Lockstep(engine.hold, 60.0)
    for place in PLACES[:2]:
        lockstep.join(WAVE, place)
    asking = [ask(lockstep, engine, place) for place in reversed(PLACES[:2])]
    await asyncio.sleep(0.01)
    assert not engine.events, "one has not come yet"
    lockstep.join(WAVE, PLACES[2])
    asking.append(ask(lockstep, engine, PLACES[2]))
    assert sorted(await asyncio.gather(*asking)) == PLACES
    assert engine.events == ["hold", *PLACES, "release"]


async def test_who_leaves_is_not_waited_for(engine: Engine) -> None:
    lockstep = Lockstep(engine.hold, 60.0)
    for place in PLACES:
        lockstep.join(WAVE, place)
    asking = [ask(lockstep, engine, place) for place in PLACES[1:]]
    await asyncio.sleep(0.01)
    lockstep.leave(WAVE, PLACES[0])
    await asyncio.wait_for(asyncio.gather(*asking), 5)
    for place in PLACES[1:]:
        lockstep.leave(WAVE, place)
    assert not lockstep._waves


async def test_who_never_comes_is_not_waited_for(engine: Engine) -> None:
    lockstep = Lockstep(engine.hold, 60.0)
    for place in PLACES[:2]:
        lockstep.join(WAVE, place)
    asking = [ask(lockstep, engine, place) for place in PLACES[:2]]
    await asyncio.sleep(0.01)
    lockstep.withdraw(WAVE)
    await asyncio.wait_for(asyncio.gather(*asking), 5)


async def test_a_wave_that_is_not_whole_goes_on_once_and_for_good_without_the_rest(engine: Engine) -> None:
    lockstep = Lockstep(engine.hold, 0.05)
    for place in PLACES[:2]:
        lockstep.join(WAVE, place)
    await asyncio.wait_for(ask(lockstep, engine, PLACES[0]), 5)
    begun = asyncio.get_running_loop().time()
    await asyncio.wait_for(ask(lockstep, engine, PLACES[0]), 5)
    await asyncio.wait_for(ask(lockstep, engine, PLACES[1]), 5)
    assert asyncio.get_running_loop().time() - begun < 0.05


async def test_a_caller_that_gives_up_is_not_started(engine: Engine) -> None:
    lockstep = Lockstep(engine.hold, 60.0)
    for place in PLACES:
        lockstep.join(WAVE, place)
    asking = [ask(lockstep, engine, place) for place in PLACES[:2]]
    await asyncio.sleep(0.01)
    asking[0].cancel()
    await asyncio.sleep(0)
    lockstep.leave(WAVE, PLACES[0])
    await asyncio.wait_for(asyncio.gather(asking[1], ask(lockstep, engine, PLACES[2])), 5)
    assert PLACES[0] not in engine.events


async def test_an_engine_that_fails_fails_all_who_ask(engine: Engine) -> None:
    @asynccontextmanager
    async def dead() -> AsyncIterator[None]:
        raise RuntimeError("dead")
        yield

    lockstep = Lockstep(dead, 60.0)
    for place in PLACES:
        lockstep.join(WAVE, place)
    results = await asyncio.gather(*(ask(lockstep, engine, place) for place in PLACES), return_exceptions=True)
    assert all(isinstance(result, RuntimeError) for result in results)


async def test_without_a_wave_a_turn_starts_at_once(engine: Engine) -> None:
    lockstep = Lockstep(engine.hold, 60.0)
    assert await lockstep.start(None, (1, 0), lambda: engine.begin((1, 0))) == (1, 0)
    assert engine.events == [(1, 0)]
