"""No orphans: an engine's processes end with the worker that owns them, even when it is killed."""

from __future__ import annotations

import os
import select
import signal
import threading

OWNER = "RAYZERO_ENGINE_OWNER_PID"
"""Environment variable: the process whose end ends the engine."""


def own_engines() -> None:
    """Make this process the owner of every engine started from it after this call."""
    os.environ[OWNER] = str(os.getpid())


def end_with_owner() -> None:
    """In a process of an engine: watch the owner from a thread, and die when it dies.

    PR_SET_PDEATHSIG would not do: it follows the thread that made the process, and not past its first generation.
    """
    owner = os.environ.get(OWNER)
    if owner is None or int(owner) == os.getpid():
        return
    try:
        handle = os.pidfd_open(int(owner))
    except ProcessLookupError:
        _end()
    threading.Thread(target=_wait, args=(handle,), name="owner-watchdog", daemon=True).start()


def _wait(handle: int) -> None:
    select.select([handle], [], [])
    _end()


def _end() -> None:
    """Between a worker of a tensor-parallel engine and the owner stands the engine's core: take it along."""
    parent = os.getppid()
    if parent > 1 and str(parent) != os.environ.get(OWNER) and _same_owner(parent):
        os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _same_owner(process: int) -> bool:
    try:
        with open(f"/proc/{process}/environ", "rb") as environment:
            return f"{OWNER}={os.environ[OWNER]}".encode() in environment.read().split(b"\0")
    except OSError:
        return False
