"""The watch over running boxes: CPU and memory of whole process trees, and who is only asleep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable

from rayzero.rewards.sandbox.folders import MAX_FILES
from rayzero.rewards.sandbox.processes import (
    Process,
    anonymous_bytes,
    cpu_seconds,
    is_asleep,
    machine_threads,
    proportional_bytes,
    scan,
    tree,
    waited_seconds,
    written_bytes,
)
from rayzero.rewards.sandbox.runs import Run

TICK_S = 0.01
YOUNG_S = 0.03
"""Runs younger than this are left alone: most are over by then, and cost the watch nothing."""
SCAN_S = 0.1
CROWD = 2 * (os.cpu_count() or 1) + 4
"""A run of more processes than this is held back: a fork bomb must not starve its neighbours, nor the watch itself."""
SURGE = 64
"""New threads on the machine within one tick that call for a look at once, where the watch alone counts them."""


class BoxMonitor:
    """Looks at every run older than a moment, and ends those past a limit."""

    def __init__(self) -> None:
        """Idle until the first run is added."""
        self._runs: dict[Run, float | None] = {}
        """CPU seconds at the last look; None before the first."""
        self._task: asyncio.Task[None] | None = None
        self._next_scan = 0.0
        self._num_threads = 0

    def add(self, run: Run) -> None:
        """Watch `run` from now on."""
        self._runs[run] = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

    def remove(self, run: Run) -> None:
        """Forget it."""
        self._runs.pop(run, None)

    async def _look(self) -> None:
        while self._runs:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            old = [run for run in self._runs if run.started and now - run.started > YOUNG_S]
            for run in old:
                self._check_process(run, now)
            if self._is_surging():
                self._check_trees([run for run in self._runs if run.started])
            elif old and now >= self._next_scan:
                before = time.thread_time()
                self._check_trees(old)
                # Sleepers alone are looked at more rarely; and never spend more than a twentieth of a core on looking.
                pause = SCAN_S if any(not run.is_parked for run in old) else 3 * SCAN_S
                self._next_scan = time.monotonic() + max(pause, 20 * (time.thread_time() - before))

    def _is_surging(self) -> bool:
        if not any(run.box.shares_count for run in self._runs):
            return False
        before, self._num_threads = self._num_threads, machine_threads()
        return 0 < before < self._num_threads - SURGE

    def _check_process(self, run: Run, now: float) -> None:
        used = max(0.0, cpu_seconds(run.box.pid) - run.base_cpu_s)
        before = self._runs.get(run)
        progress = 0.0 if before is None else used - before  # who computes is not asleep at the first look
        self._runs[run] = used
        run.seen_cpu_s = max(run.seen_cpu_s, used)
        if used > run.limits.cpu_s:
            run.end("cpu")
        elif not run.is_parked and progress < 0.05 * TICK_S and is_asleep(run.box.pid):
            run.is_parked = True
            if not run.box.group:  # a group's leader may be bubblewrap itself, which always sleeps: see the tree
                run.park()
        elif run.is_parked and progress > 0.5 * TICK_S:
            run.is_parked = False

    def _check_trees(self, runs: list[Run]) -> None:
        processes = scan()
        for run in runs:
            members = tree(processes, run.box.pid)
            cpu_s = sum(process.cpu_s for process in members) - run.base_cpu_s
            idle = cpu_s - run.seen_cpu_s < 0.05 * SCAN_S
            run.seen_cpu_s = max(run.seen_cpu_s, cpu_s)
            if len(members) > CROWD:
                _hold_back(members)
            if run.seen_cpu_s > run.limits.cpu_s:
                run.end("cpu")
            elif run.box.shares_count and sum(each.num_threads for each in members) > run.limits.num_processes:
                run.end("processes")
            elif _memory_used(run, members) > run.limits.memory_bytes:
                run.end("memory")
            elif _overfills(run, members):
                run.end("files")
            elif run.box.folder is not None and not run.box.folder.has_room_left():
                run.end("failed", "the machine's disk is full")
            elif run.is_parked and idle:
                run.park()


def _memory_used(run: Run, members: list[Process]) -> int:
    """Bytes of a tree, from the cheapest account that clears it to the dearest."""
    resident = sum(process.resident_bytes for process in members)
    if resident <= run.limits.memory_bytes:
        return resident
    if len(members) > CROWD:
        return sum(max(0, anonymous_bytes(process.pid) - run.base_memory_bytes) for process in members)
    return proportional_bytes(members)


def _overfills(run: Run, members: list[Process]) -> bool:
    """Whether it has more or larger files than allowed. A Python box's own mounts are bounded in both."""
    if run.box.folder is not None:
        return run.box.folder.is_full(sum(written_bytes(process.pid) for process in members))
    return run.box.status is not None and _num_files(members) > MAX_FILES


def _num_files(members: list[Process]) -> int:
    """Files in a box's own /tmp and /dev/shm, which bubblewrap can bound in size alone."""
    inside = max((process.pid for process in members), default=0)
    total = 0
    for folder in ("tmp", "dev/shm"):
        with contextlib.suppress(OSError):
            place = f"/proc/{inside}/root/{folder}"
            if os.stat(place).st_dev == os.stat("/" + folder).st_dev:
                continue  # bubblewrap has not left the machine's own yet
            found = os.statvfs(place)
            total += found.f_files - found.f_ffree
    return total


def _hold_back(members: Iterable[Process]) -> None:
    for process in members:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 19)


def starved(run: Run) -> str:
    """Why the wall limit of `run` says nothing about the program; empty where it does."""
    pids = [process.pid for process in tree(scan(), run.box.pid)]
    if not 0 < len(pids) <= CROWD:
        return ""  # a crowd waits for itself
    waited = max(waited_seconds(pid) for pid in pids)
    if waited > 0.25 * run.limits.wall_s and waited + run.seen_cpu_s > 0.5 * run.limits.wall_s:
        return f"the machine is overloaded: ready for {waited:.1f} of {run.limits.wall_s:.1f} s without a core"
    return ""
