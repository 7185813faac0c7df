"""Ctrl-C and SIGTERM for work that has nothing of its own to save: it is cancelled, and every `finally` is run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within: either signal cancels the current task, which then raises KeyboardInterrupt.

    To be entered when Ray is connected: Ray puts a handler of its own in the place of those it finds, and that one
    prints a stack and aborts, with actors and temporary files left behind.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    interrupted = False

    def end() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        yield
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
