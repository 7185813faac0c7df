"""Work beside the training: one at a time, and its failure is not lost."""

from __future__ import annotations

import asyncio

import pytest

from rayzero.services.loop.side_task import SideTask


async def test_the_next_waits_for_the_one_before() -> None:
    side, go, done = SideTask(), asyncio.Event(), list[str]()

    async def work() -> None:
        await go.wait()
        done.append("work")

    await side.finish()  # there is none: at once
    side.begin(work())
    held = iter([True, True, False])
    await side.wait_while(lambda: next(held), poll_s=0.0)
    assert side.task is not None and not side.task.done() and not done
    go.set()
    await side.finish()
    assert done == ["work"] and side.task is None


async def test_a_failure_is_raised_at_every_finish() -> None:
    async def work() -> None:
        raise RuntimeError("the disk is full")

    side = SideTask()
    side.begin(work())
    await side.wait_while(lambda: True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="disk is full"):
            await side.finish()
