"""Puts a deadline on a blocking call that has none of its own, as NCCL's waits have none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


def bounded(work: Callable[[], T], deadline_s: float, given_up: Callable[[], bool] = lambda: False) -> T:
    """What `work` returns or raises.

    Raises:
        TimeoutError: it was not over in time, or `given_up` became true. It still runs, on a daemon thread that holds
            up no exit: the caller sees to it that it ends (for NCCL: abort the communicator).
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="bounded", daemon=True).start()
    give_up = time.monotonic() + deadline_s
    while not future.done():
        left_s = give_up - time.monotonic()
        if left_s <= 0 or given_up():
            raise TimeoutError
        wait_for([future], timeout=min(POLL_S, left_s))
    return future.result()
