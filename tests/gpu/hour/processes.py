"""A step's processes, all of them: Ray and vLLM start some in sessions of their own, so they are found by a mark that
every process inherits in its environment. Standard library alone; Linux."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "RAYZERO_FIRST_HOUR_STEP"
POLL_S = 0.05
LONGEST_COMMAND = 160


def marked(mark: str) -> list[int]:
    """Living processes that were started with this mark, this one not among them."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, IndexError):
            if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(entry.name))
    return found


def end_marked(mark: str, grace_s: float = 0.0, patience_s: float = 15.0) -> list[str]:
    """Kill what still lives after `grace_s`, and wait until it is gone; the commands of what there was."""
    give_up = time.monotonic() + grace_s
    while (left := marked(mark)) and time.monotonic() < give_up:
        time.sleep(POLL_S)
    killed: dict[int, str] = {}
    give_up = time.monotonic() + patience_s
    while left and time.monotonic() < give_up:
        for process in left:
            killed.setdefault(process, command_of(process))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(POLL_S)
        left = marked(mark)  # what was being started meanwhile
    return [killed[process] for process in sorted(killed)]


def command_of(process: int) -> str:
    """Its command line, cut short; empty when it is gone."""
    with contextlib.suppress(OSError):
        line = (Path("/proc") / str(process) / "cmdline").read_bytes().replace(b"\0", b" ")
        return line.decode(errors="replace").strip()[:LONGEST_COMMAND]
    return ""
