"""The supervisor's parent, which does nothing until the supervisor has ended: then it ends what that left behind.

Where no namespace ends with it (Landlock, `unsafe`), a killed supervisor leaves what programs had forked. The guardian
is the next subreaper above, so all of it is handed over to it. It is small and idle: a kernel that is short of memory
picks others first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from rayzero.rewards.sandbox.inside.confine import PR_SET_PDEATHSIG, libc
from rayzero.rewards.sandbox.processes import below
from rayzero.rewards.sandbox.reaper import PR_SET_CHILD_SUBREAPER

TIDY_S = 30.0
"""A fork bomb on a machine without a free core takes a while to be ended."""
PAUSE_S = 0.005


def stand_guard() -> None:
    """Returns in a child, which becomes the supervisor. This process ends after it, and SIGTERM here ends it at once.

    To be called before anything else has been started or opened.
    """
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    guardian = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian:
            os._exit(1)
        return
    signal.signal(signal.SIGTERM, lambda *_: _kill(supervisor, signal.SIGKILL))
    # The client's socket above all: it is closed when the supervisor has ended, not when this process has.
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    wait_for(supervisor)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its number may be another's from here on
    end_descendants(TIDY_S)
    os._exit(0)


def wait_for(child: int) -> None:
    """Until it has ended; orphans that end meanwhile are buried."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0)[0] != child:
            pass


def end_descendants(deadline_s: float) -> None:
    """Kill all below this process, which must be a subreaper, and bury them."""
    give_up = time.monotonic() + deadline_s
    while time.monotonic() < give_up:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = below(os.getpid())
        if not left:
            return
        # Stopped first, all of them: a bomb that is killed one by one forks on meanwhile.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                _kill(pid, number)
        time.sleep(PAUSE_S)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
