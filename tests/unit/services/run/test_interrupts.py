"""What a signal ends is cleaned up after."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from rayzero.services.run.interrupts import ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_runs_every_finally_and_is_an_interrupt(number: signal.Signals) -> None:
    cleaned = []

    async def work() -> None:
        try:
            with ended_by_signals():
                os.kill(os.getpid(), number)
                await asyncio.sleep(5.0)
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert cleaned == [number]


async def test_a_cancelled_task_stays_cancelled() -> None:
    async def work() -> None:
        with ended_by_signals():
            await asyncio.sleep(5.0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
