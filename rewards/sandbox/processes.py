"""Processes as /proc shows them: trees, CPU, memory, time spent waiting for a core."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A row of /proc/<pid>/stat."""

    pid: int
    parent: int
    group: int
    cpu_s: float
    """Own and of waited-for children."""
    resident_bytes: int
    num_threads: int = 1


def scan() -> list[Process]:
    """Every process of the machine that we can see."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b") ")[2].split()
                cpu_s = sum(map(int, fields[11:15])) / _CLOCK_TICKS
                resident_bytes, num_threads = int(fields[21]) * _PAGE, int(fields[17])
                found.append(Process(int(name), int(fields[1]), int(fields[2]), cpu_s, resident_bytes, num_threads))
    return found


def tree(processes: Iterable[Process], pid: int) -> list[Process]:
    """`pid`, its descendants, and the rest of its process group."""
    children: dict[int, list[Process]] = defaultdict(list)
    members: dict[int, Process] = {}
    for process in processes:
        children[process.parent].append(process)
        if process.pid == pid or process.group == pid:
            members[process.pid] = process
    queue = list(members)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child.pid not in members:
                members[child.pid] = child
                queue.append(child.pid)
    return list(members.values())


def descendants(pid: int, parent: int) -> list[int]:
    """All processes below `pid`, a child of `parent`; none where it is one no longer, for its id may be another's by
    now. Reads a few files; where the kernel does not list children, those of every process."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        if int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1]) == parent:
            return below(pid)
    return []


def below(pid: int) -> list[int]:
    """All processes below `pid`, which must be one that still is. Reads as `descendants` does."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return [process.pid for process in tree(scan(), pid) if process.pid != pid]
    found, queue = [], [pid]
    while queue:
        above = queue.pop()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for file in Path(f"/proc/{above}/task").glob("*/children"):
                new = [int(child) for child in file.read_text(encoding="ascii").split()]
                queue += new
                found += new
    return found


def machine_threads() -> int:
    """Processes and threads of the whole machine: one small file, read in microseconds."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[3].partition("/")[2])
    return 0


def written_bytes(pid: int) -> int:
    """What the process and its waited-for children have written to disks; 0 where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError, KeyError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        counts = dict(line.split(": ") for line in file.read().splitlines())
        return int(counts["write_bytes"]) - int(counts["cancelled_write_bytes"])
    return 0


def cpu_seconds(pid: int) -> float:
    """CPU of one process to the nanosecond; 0 once it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def waited_seconds(pid: int) -> float:
    """How long the process stood ready without a core: an overloaded machine, not a slow program."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[1]) / 1e9
    return 0.0


def is_asleep(pid: int) -> bool:
    """Whether its main thread waits for something other than a core."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] in b"SD"
    return False


def anonymous_bytes(pid: int) -> int:
    """Resident bytes that are no file's; 0 once it is gone. Takes no lock of the process."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE
    return 0


def proportional_bytes(members: Iterable[Process]) -> int:
    """Resident bytes with shared pages counted once in sum; plain resident bytes where the kernel does not tell.

    Waits for each process's memory map: not to be asked of a crowd that forks and is held back.
    """
    total = 0
    for process in members:
        total += _proportional(process)
    return total


def _proportional(process: Process) -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return process.resident_bytes
