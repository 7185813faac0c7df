"""The warm interpreter: forks one box a job, so that a program costs a fork instead of an interpreter's start.

Runs inside bubblewrap as an unprivileged user and never runs a stranger's code itself. Each box leaves all of the
zygote's namespaces (and gives up the means to make new ones) before it says that it is ready, so boxes see neither it
nor one another.

    supervisor ── datagram with 4 descriptors (report, job, stdin, stdout) ──► zygote
    zygote ─ fork ─► keeper (new namespaces; waits; reports the box's end and CPU) ─ fork ─► box (pid 1 of its own)
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from rayzero.rewards.sandbox.inside import confine, programs, scope

REPORT = struct.Struct("!iidq")
"""Wait status, 0 or an errno of the set-up, CPU seconds of the box and all its children, peak resident bytes of one."""

_PRELOADED = """
    array ast asyncio bisect calendar cmath collections copy ctypes dataclasses datetime decimal enum
    fractions functools hashlib heapq inspect io itertools json math numbers operator queue random re
    statistics string struct textwrap threading time traceback typing unicodedata
"""
PRELOADED = (*_PRELOADED.split(), "rayzero.rewards.sandbox.inside.serving", "rayzero.rewards.sandbox.inside.testing")
"""What programs import most: a fork has it already."""


@dataclasses.dataclass
class ZygotePlan:
    """How boxes are confined, and what they find imported."""

    tmp_bytes: int
    seccomp: str | None
    """Path of the seccomp program; None where nothing confines."""
    namespaces: bool = True
    """Every box leaves all namespaces; False where the kernel makes none, and Landlock has to hold."""
    landlock: dict[str, list[str]] | None = None
    packages: str = ""
    """Folder of third-party packages that the preloaded functions need."""
    preload: Sequence[str] = ()
    """`module:function`, called once: code of ours, never a stranger's."""
    home: str = ""
    """Folder for what packages write when they are imported; no box can write there."""


def main() -> None:
    """Serve until the supervisor closes the socket. argv: number of that socket, then a ZygotePlan as JSON."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    plan = ZygotePlan(**json.loads(sys.argv[2]))
    seccomp = Path(plan.seccomp).read_bytes() if plan.seccomp else b""  # out of reach once this is confined
    for name in PRELOADED:
        __import__(name)
    scope.offered()
    if plan.home:
        os.environ.update(HOME=plan.home, TMPDIR=plan.home)
    if plan.landlock:
        confine.no_new_privileges()
        confine.landlock(plan.landlock["readable"], [*plan.landlock["writable"], plan.home])
    if plan.packages:
        sys.path.append(plan.packages)
    for target in plan.preload:
        module, _, function = target.partition(":")
        getattr(importlib.import_module(module), function)()
    gc.collect()
    gc.freeze()
    orders.send(b"warm")
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, 16, 4)
        if not message:
            return
        if os.fork() == 0:
            orders.close()
            keep(descriptors, plan, seccomp)
        for descriptor in descriptors:
            os.close(descriptor)
        bury()


def bury() -> None:
    """Wait for keepers that are done. (Ignoring SIGCHLD would do so too, but lose the account of their CPU.)"""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def keep(descriptors: list[int], plan: ZygotePlan, seccomp: bytes) -> None:
    """Make the box's namespaces, fork the box into them, wait for its end and report it. Never returns."""
    report, job, stdin, stdout = descriptors
    try:
        if plan.namespaces:
            confine.new_namespaces(plan.tmp_bytes)
        else:
            confine.libc.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)  # no namespace ends with the zygote
        box = os.fork()
    except OSError as error:
        os.write(report, REPORT.pack(0, error.errno or 1, 0.0, 0))
        os._exit(1)
    if box == 0:
        enter(job, stdin, stdout, plan, seccomp)
    for descriptor in (job, stdin, stdout):
        os.close(descriptor)
    if not plan.namespaces:
        os.waitid(os.P_PID, box, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(box, signal.SIGKILL)  # what it left running; its own id is not given away before it is reaped
    _, status, usage = os.wait4(box, 0)
    os.write(report, REPORT.pack(status, 0, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024))
    os._exit(0)


def enter(job: int, stdin: int, stdout: int, plan: ZygotePlan, seccomp: bytes) -> None:
    """The box: take the descriptors, give up every power, then wait for the job. Never returns."""
    try:
        if not plan.namespaces:
            confine.libc.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        channel = socket.socket(fileno=os.dup2(job, 3, inheritable=False))
        os.closerange(4, 256)  # the report, which only the keeper may write, among them
        os.chdir("/tmp" if plan.namespaces else "/")
        if plan.namespaces:
            confine.own_proc()
            confine.drop_capabilities()
        if seccomp:
            confine.no_new_privileges()
            if plan.landlock:
                confine.landlock(plan.landlock["readable"], plan.landlock["writable"])
            confine.install_filter(seccomp)
        channel.send(b"\0")
    except BaseException:
        os._exit(120)
    programs.run(channel)
