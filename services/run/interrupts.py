"""The signals that end work: Ctrl-C, SIGTERM, a closed terminal (SIGHUP) and Slurm's notice (SIGUSR1).

They go to whole process groups and, from Slurm, to every process of a step: what the driver starts must not die of
them while the driver saves (`held_from_children`).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def answer_signals(answer: Callable[[signal.Signals], None]) -> list[signal.Signals]:
    """Call `answer` in the running loop for every signal that ends work; returns those that it will be called for.

    A SIGHUP that the user has turned off (`nohup`) stays off. To be called when Ray is connected: Ray puts a handler
    of its own in the place of those it finds, and that one prints a stack and aborts, with actors and temporary files
    left behind.
    """
    loop = asyncio.get_running_loop()
    answered = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in answered:
        loop.add_signal_handler(number, answer, number)
    return answered


@contextmanager
def held_from_children() -> Iterator[None]:
    """Processes that this thread starts within do not get the terminal's and Slurm's signals, as Ray keeps Ctrl-C from
    its own: a run whose actors are gone has nothing left to save."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """For work that has nothing of its own to save: each of them cancels the current task, which then raises
    KeyboardInterrupt, and every `finally` is run. To be entered when Ray is connected."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    interrupted = False

    def end(_: signal.Signals) -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    answered = answer_signals(end)
    try:
        yield
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in answered:
            loop.remove_signal_handler(number)
