"""Memory control groups, where this process may make them: the kernel's own account of a run's memory, tmpfs and
pipes included.

A second fence behind the watch: it leaves no moment between two looks. Groups are kept and used again, because the
kernel is slow to forget them. Without a writable hierarchy (no root, most containers) there are none, and the watch
stands alone.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from rayzero.rewards.sandbox.limits import MIB

_ROOT = Path("/sys/fs/cgroup")
SLACK_BYTES = 32 * MIB
"""On top of the run's limit and its /tmp: page tables, pipes, the interpreter's own pages."""


class MemoryGroup:
    """One control group; holds one run at a time."""

    def __init__(self, folder: Path, unified: bool) -> None:
        """`unified`: cgroup v2."""
        self._folder = folder
        self._limit = "memory.max" if unified else "memory.limit_in_bytes"
        self._events = "memory.events" if unified else "memory.oom_control"
        self._kills_before = 0

    def hold(self, pid: int, memory_bytes: int) -> None:
        """Put a process, and all that it will start, under a limit. OSError where the kernel refuses."""
        (self._folder / self._limit).write_text(str(memory_bytes))
        self._kills_before = self._kills()
        (self._folder / "cgroup.procs").write_text(str(pid))

    def has_killed(self) -> bool:
        """Whether the run went past its limit."""
        return self._kills() > self._kills_before

    def _kills(self) -> int:
        match = re.search(r"^oom_kill (\d+)", (self._folder / self._events).read_text(), re.MULTILINE)
        return int(match[1]) if match else 0


class Groups:
    """The groups of one supervisor."""

    def __init__(self, parent: Path, unified: bool) -> None:
        """Use `find`."""
        self._parent = parent
        self._unified = unified
        self._free: list[MemoryGroup] = []
        self._num_made = 0

    @classmethod
    def find(cls) -> Groups | None:
        """A hierarchy of our own in the machine's; None where we may not have one."""
        unified = (_ROOT / "cgroup.controllers").exists()
        root = _ROOT if unified else _ROOT / "memory"
        parent = root / f"rayzero-{os.getpid()}"
        try:
            _forget_the_dead(root)
            parent.mkdir()
            if unified:
                (parent / "cgroup.subtree_control").write_text("+memory")
            groups = cls(parent, unified)
            groups.give_back(groups.take())
            return groups
        except OSError:
            with contextlib.suppress(OSError):
                parent.rmdir()
            return None

    def take(self) -> MemoryGroup:
        """A control group without a process."""
        if self._free:
            return self._free.pop()
        self._num_made += 1
        folder = self._parent / str(self._num_made)
        folder.mkdir()
        if self._unified:
            (folder / "memory.oom.group").write_text("1")
        return MemoryGroup(folder, self._unified)

    def give_back(self, group: MemoryGroup) -> None:
        """Its run has ended."""
        self._free.append(group)

    def close(self) -> None:
        """Remove what is empty."""
        _remove(self._parent)


def _remove(parent: Path) -> None:
    for folder in (*parent.glob("[0-9]*"), parent):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _forget_the_dead(root: Path) -> None:
    """Remove what supervisors that were killed have left."""
    for folder in root.glob("rayzero-*"):
        if not Path("/proc", folder.name.rpartition("-")[2]).exists():
            _remove(folder)
