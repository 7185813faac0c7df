"""Whether the machine is at fault when a program complains of what every machine may lack: processes, threads, disk.

Its complaint proves nothing, for a program can print the words. A control that is no stranger's is run in a box of the
same kind: where that fails too, the machine is at fault, and only there.
"""

from __future__ import annotations

import re

from rayzero.rewards.sandbox.limits import MIB, Limits, Outcome

_COMPLAINTS = re.compile(
    rb"[Cc]annot fork|fork: retry|vfork|[Rr]esource temporarily unavailable|[Nn]o space left on device|"
    rb"[Dd]isk quota exceeded|can't start new thread|unable to create (new )?native thread|pthread_create|"
    rb"failed to create new OS thread|EAGAIN|ENOSPC|Errno 11\b|Errno 28\b"
)
_FINE = b"fine\n"
_SCRIPT = """
n=0
while [ $n -lt {processes} ]; do sleep 0.3 & n=$((n+1)); done
wait
head -c {num_bytes} /dev/zero > {{tmp}}/control
rm {{tmp}}/control
echo fine
"""


def complains(outcome: Outcome) -> bool:
    """Whether a run that failed says that it was refused a process or room on a disk."""
    if outcome.ended != "exited" or outcome.code == 0:
        return False
    return _COMPLAINTS.search(outcome.stderr) is not None or _COMPLAINTS.search(outcome.result) is not None


def control(limits: Limits) -> tuple[list[str], Limits]:
    """A program that needs most of what these limits grant, and its own limits."""
    script = _SCRIPT.format(processes=3 * limits.num_processes // 4, num_bytes=min(limits.file_bytes, 64 * MIB))
    own = Limits(cpu_s=10, wall_s=20, num_processes=limits.num_processes, file_bytes=limits.file_bytes)
    return ["/bin/sh", "-ec", script], own


def is_fine(outcome: Outcome) -> bool:
    """Whether the control came through; one that was starved tells nothing."""
    return outcome.ended == "starved" or (outcome.ended == "exited" and outcome.stdout == _FINE)
