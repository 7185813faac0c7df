"""Work for child processes in the tests: quick, asleep, spinning, stuck in C, dying, greedy."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any


def worker(argument: Any) -> Callable[[Any], Any]:
    """Does what the item says."""

    def work(item: Any) -> Any:
        action, value = item
        return ACTIONS[action](value)

    return work


def cannot_start(argument: Any) -> Callable[[Any], Any]:
    """A factory that fails."""
    raise RuntimeError("no model here")


def _spin(seconds: float) -> str:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return "spun"


def _spin_in_c(exponent: int) -> int:
    return (7**exponent) % 10  # one C call: no Python signal handler runs until it is over


def _allocate(num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def _leave_grandchild(path: str) -> int:
    process = subprocess.Popen(["sleep", "300"])
    with open(path, "w") as file:
        file.write(str(process.pid))
    time.sleep(300)
    return 0


def _raise(text: str) -> None:
    raise ValueError(text)


def _once(path: str) -> str:
    """Dies the first time, answers the second."""
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second try"


ACTIONS: dict[str, Callable[[Any], Any]] = {
    "environment": os.environ.get,
    "echo": lambda value: value,
    "pid": lambda _: os.getpid(),
    "sleep": time.sleep,
    "spin": _spin,
    "spin_in_c": _spin_in_c,
    "allocate": _allocate,
    "grandchild": _leave_grandchild,
    "raise": _raise,
    "exit": os._exit,
    "signal": lambda number: os.kill(os.getpid(), number),
    "leave": lambda _: (_ for _ in ()).throw(SystemExit(3)),
    "once": _once,
    "object": lambda _: object(),
    "length": len,
}


def warm_up_steps() -> Iterator[None]:
    """Leaves its mark in whatever is forked afterwards."""
    global warmth
    for _ in range(3):
        warmth += 1
        yield


warmth = 0
ACTIONS["warmth"] = lambda _: warmth


def near(given: Any, output: str, expected: str) -> bool:
    """A checker that accepts numbers within a tenth."""
    return abs(float(output) - float(expected)) < 0.1


def broken_checker(given: Any, output: Any, expected: Any) -> bool:
    """A checker that can judge nothing."""
    raise KeyError(given)
