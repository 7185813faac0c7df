"""Who gets the next lease: priority first, then in order; on the least loaded worker that has room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rayzero.services.fleet.lease_queue import LeaseQueue
from rayzero.services.fleet.load_limit import LoadLimit
from rayzero.services.fleet.slots import SlotState, WorkerSlot
from rayzero.services.schema.errors import WorkerError


def slot(name: str, limit: int, number: int = 0) -> WorkerSlot[Any]:
    return WorkerSlot(name, number=number, state=SlotState.SERVING, limit=LoadLimit(limit))


async def acquired(queue: LeaseQueue[Any]) -> str:
    found = await queue.acquire(5.0)
    assert found is not None
    return found.name


async def test_leases_go_to_the_smallest_share_of_a_limit_in_use() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    small, large = slot("small", 2, number=0), slot("large", 4, number=1)
    queue.offer(small)
    queue.offer(large)
    given = [await acquired(queue) for _ in range(6)]
    assert given == ["small", "large", "large", "small", "large", "large"]
    assert (small.in_flight, large.in_flight) == (2, 4)


async def test_those_who_wait_are_served_in_their_order_but_for_priority() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    worker, served = slot("a", 1), list[str]()
    queue.offer(worker)
    assert await acquired(queue) == "a"

    async def wait(name: str, priority: bool) -> None:
        assert await queue.acquire(5.0, priority) is worker
        served.append(name)

    waiting = [asyncio.create_task(wait(name, name == "evaluation")) for name in ("first", "second", "evaluation")]
    await asyncio.sleep(0)
    for _ in waiting:
        queue.release(worker)
        await asyncio.sleep(0.001)
    assert served == ["evaluation", "first", "second"]


async def test_a_wait_ends_with_its_deadline_and_leaves_nothing_taken() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    assert await queue.acquire(0.0) is None
    worker = slot("a", 1)
    queue.offer(worker)
    assert worker.in_flight == 0 and await acquired(queue) == "a"


async def test_a_lease_that_is_handed_out_as_its_waiter_is_cancelled_goes_back() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    task = asyncio.create_task(queue.acquire(5.0))
    await asyncio.sleep(0)
    worker = slot("a", 1)
    queue.offer(worker)  # the future has its result, the task has not yet run
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert worker.in_flight == 0 and await acquired(queue) == "a"


async def test_a_worker_that_no_longer_serves_is_passed_over() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    leaving, other = slot("a", 4, number=0), slot("b", 4, number=1)
    queue.offer(leaving)
    queue.offer(other)
    leaving.state = SlotState.DRAINING
    assert await acquired(queue) == "b"


async def test_a_fleet_that_gives_up_fails_those_who_wait_and_those_who_come() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    waiting = asyncio.create_task(queue.acquire(5.0))
    await asyncio.sleep(0)
    queue.fail(WorkerError("gone"))
    for each in (waiting, queue.acquire(5.0)):
        with pytest.raises(WorkerError, match="gone"):
            await each


async def test_what_is_not_true_any_more_does_not_gather() -> None:
    queue: LeaseQueue[Any] = LeaseQueue()
    worker = slot("a", 4)
    queue.offer(worker)
    for _ in range(5000):
        assert await acquired(queue) == "a"
        queue.release(worker)
    assert len(queue._free) <= 2 * 1024
    assert [await acquired(queue) for _ in range(4)] == ["a"] * 4 and worker.in_flight == 4
    assert await queue.acquire(0.0) is None
