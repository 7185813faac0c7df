"""Whether a process that a test has ended is gone."""

from __future__ import annotations

import contextlib

import psutil


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended: an orphan may lie about as a zombie where nothing reaps it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
