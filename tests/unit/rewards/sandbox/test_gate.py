import asyncio

from rayzero.rewards.sandbox.gate import Gate, Pass


async def settled(task: asyncio.Task[Pass]) -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return task.done()


async def test_slots_bound_and_are_given_in_order() -> None:
    gate = Gate(1, 100)
    first = await gate.enter(10)
    second, third = asyncio.create_task(gate.enter(10)), asyncio.create_task(gate.enter(10))
    assert not await settled(second)
    first.leave()
    assert await settled(second)
    assert not await settled(third)
    (await second).leave()
    assert await settled(third)


async def test_a_parked_run_gives_its_slot_but_not_its_memory() -> None:
    gate = Gate(1, 100)
    sleeper = await gate.enter(60)
    sleeper.park()
    sleeper.park()
    small, large = await gate.enter(40), asyncio.create_task(gate.enter(50))
    assert not await settled(large)
    small.leave()
    assert not await settled(large)
    sleeper.leave()
    assert await settled(large)


async def test_what_is_larger_than_all_memory_still_runs_alone() -> None:
    gate = Gate(2, 100)
    huge = await gate.enter(1000)
    other = asyncio.create_task(gate.enter(1))
    assert not await settled(other)
    huge.leave()
    assert await settled(other)


async def test_who_gives_up_waiting_holds_nothing() -> None:
    gate = Gate(1, 100)
    first = await gate.enter(10)
    quitter, patient = asyncio.create_task(gate.enter(10)), asyncio.create_task(gate.enter(10))
    assert not await settled(patient)
    quitter.cancel()
    first.leave()
    assert await settled(patient)
