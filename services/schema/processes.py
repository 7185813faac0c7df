"""Which process a process id means: numbers are used again, and count within one machine and one container alone."""

from __future__ import annotations

import os
from pathlib import Path


def boot_id() -> str:
    """Of this machine since its last start: the same in all of its containers, and nowhere else."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def pid_space() -> str:
    """Within which process ids can be compared: this machine since its last start, this container."""
    return f"{boot_id()} {os.readlink('/proc/self/ns/pid')}"


def started(pid: int) -> int | None:
    """When a living process of this pid space began, in clock ticks since the machine's start; None: there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
