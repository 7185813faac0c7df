"""What one run may use, and what ends it."""

from __future__ import annotations

import math
import resource
from dataclasses import asdict, dataclass
from typing import Any

MIB = 1 << 20
MAX_PENDING_SIGNALS = 256
_CORE_BYTES = min(1, resource.getrlimit(resource.RLIMIT_CORE)[1] % (1 << 64))
"""Where crashes go to a program (`|` in kernel.core_pattern), the kernel starts it, as root, for one with a limit of 0,
and for none with a limit of 1; either writes no file."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one run. A program is judged on `cpu_s`; `wall_s` is the backstop for one that sleeps."""

    cpu_s: float = 2.0
    """CPU seconds of the program and all its children."""
    wall_s: float = 6.0
    """Seconds from the moment the job is handed over."""
    memory_bytes: int = 256 * MIB
    """Resident bytes, summed over the processes of the run."""
    address_space: bool = True
    """Bound address space too. False for runtimes that reserve far more than they use (JVM, V8, Go): data is bounded
    instead."""
    num_processes: int = 64
    num_files: int = 256
    """Open descriptors a process."""
    file_bytes: int = 64 * MIB
    """Largest file."""
    output_bytes: int = 65536
    """Captured bytes; one more ends the run."""
    stack_bytes: int = 64 * MIB

    def rlimits(self, others: int = 0) -> dict[str, int]:
        """Per-process limits by RLIMIT name. The supervisor's own watch is finer; these hold where it looks away.

        `others`: processes and threads that the user may have besides, where the kernel counts them together.
        """
        return {
            # Stacks of threads count in full, as large as STACK: an honest pool of two dozen must start.
            "AS" if self.address_space else "DATA": self.memory_bytes + 2048 * MIB,
            "CPU": math.ceil(self.cpu_s) + 1,
            "NPROC": self.num_processes + others,
            "NOFILE": self.num_files,
            "FSIZE": self.file_bytes,
            "STACK": self.stack_bytes,
            "CORE": _CORE_BYTES,
            # What the kernel counts for the whole user: a box may not use it up for the user's other processes.
            "SIGPENDING": MAX_PENDING_SIGNALS,
            "MSGQUEUE": 0,
            "MEMLOCK": 65536,
        }

    def to_dict(self) -> dict[str, Any]:
        """For the wire to the supervisor."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. `stdout`, `result` and `stderr` are the program's own bytes: nothing in them is to be
    believed."""

    ended: str
    """exited, cpu, wall, memory, output, processes, files; or failed / starved: the machine's fault, never the
    program's."""
    code: int = 0
    """Exit status, or minus the signal's number."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    """Peak resident bytes of the largest process."""
    detail: str = ""
    """Why it failed, where the machine is at fault."""
    stdout: bytes = b""
    result: bytes = b""
    """What a Python job sent over its channel."""
    stderr: bytes = b""

    @property
    def is_infrastructure(self) -> bool:
        """True when the run says nothing about the program."""
        return self.ended in ("failed", "starved")
