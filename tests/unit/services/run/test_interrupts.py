"""What a signal ends is cleaned up after."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from rayzero.services.run.interrupts import answer_signals, ended_by_signals, held_from_children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
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


async def test_a_hangup_that_the_user_has_turned_off_stays_off() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        answered = answer_signals(lambda number: None)
        assert answered == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number in answered:
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)


def test_what_is_started_for_the_run_outlives_the_terminal_and_a_notice() -> None:
    struck = "import os, signal; [os.kill(os.getpid(), n) for n in (signal.SIGHUP, signal.SIGUSR1)]; print('alive')"
    with held_from_children():
        child = subprocess.run([sys.executable, "-c", struck], capture_output=True, text=True, check=False)
    assert child.stdout == "alive\n"
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
