"""The attack that every supervisor makes on its own backend before it runs anybody's program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from rayzero.rewards.sandbox import seccomp
from rayzero.rewards.sandbox.boxes import BoxError
from rayzero.rewards.sandbox.frames import job_frame
from rayzero.rewards.sandbox.limits import Limits, Outcome
from rayzero.services.schema.processes import started

_PLACES = ("/probe", "/usr/probe", "/dev/probe", "/etc/probe", "/var/tmp/probe", "/proc/probe")


def _tries(*attempts: str) -> str:
    """Each by itself: one that is refused keeps the next from nothing."""
    return "\n".join(f"try: {attempt}; win()\nexcept (OSError, ValueError): pass" for attempt in attempts)


def _each(attempt: str, name: str, values: Sequence[object]) -> str:
    return f"for {name} in {tuple(values)!r}:\n" + textwrap.indent(_tries(attempt), "    ")


PROBES: Mapping[str, str] = {
    "calls": "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "for number, refusal in CALLS:\n"
    "    if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != refusal: win()",
    "descriptors": "found = []\nfor n in range(4, 256):\n"
    "    try: os.fstat(n); found.append(n)\n    except OSError: pass\n"
    "if found: win()",
    "read": "open(CANARY).read(); win()",
    "list": "names = os.listdir(os.path.dirname(CANARY)); win() if os.path.basename(CANARY) in names else None",
    "home": "try: win() if os.path.basename(HOME) in os.listdir(os.path.dirname(HOME)) else None\n"
    "except OSError: pass\n"
    "open(HOME).read(); win()",
    "write": _each("open(path, 'w').write('x')", "path", _PLACES),
    "modes": _tries(
        "os.chmod(CANARY, 0o644)",
        "os.utime(CANARY)",
        "os.chown(CANARY, -1, os.getgid())",
        "os.setxattr(CANARY, 'user.probe', b'')",
        "os.fchmod(os.open(json.__file__, os.O_RDONLY), 0o644)",
    ),
    "environment": "for name in (['/proc/1/environ', '/proc/self/environ'] + ['/proc/%s/environ' % p for p in PIDS]):\n"
    "    try: win() if SECRET in open(name, 'rb').read().decode('latin1') else None\n"
    "    except OSError: pass\n"
    "if SECRET in str(os.environ): win()",
    "network": "s = __import__('socket').socket(); s.settimeout(0.5); s.connect(('127.0.0.1', PORT)); win()",
    "sockets": _each("__import__('socket').socketpair(1, kind)", "kind", (2, 3)),
    "signal": "for p in PIDS:\n    try: os.kill(p, 0); win()\n    except OSError: pass",
    "priorities": "import resource\nfor p in PIDS:\n"
    + textwrap.indent(
        _tries(
            "os.setpriority(os.PRIO_PROCESS, p, os.getpriority(os.PRIO_PROCESS, p))",
            "os.sched_setaffinity(p, os.sched_getaffinity(p))",
            "os.sched_setscheduler(p, os.sched_getscheduler(p), os.sched_param(0))",
            "resource.prlimit(p, resource.RLIMIT_NOFILE, resource.prlimit(p, resource.RLIMIT_NOFILE))",
        ),
        "    ",
    ),
    "trace": "import ctypes\nfor p in PIDS:\n    if ctypes.CDLL(None).ptrace(16, p, 0, 0) == 0: win()",
    "shared": "import ctypes\nlibc, room = ctypes.CDLL(None), ctypes.create_string_buffer(256)\n"
    "asked = (libc.shmget, 0, 4096, 0o600), (libc.shmctl, 0, 3, room), "
    "(libc.semctl, 0, 0, 3, room), (libc.msgctl, 0, 3, room)\n"
    "if max(call(*given) for call, *given in asked) >= 0: win()",
    "counted": "import ctypes\nlibc, room = ctypes.CDLL(None), ctypes.create_string_buffer(256)\n"
    "if libc.timer_create(0, None, room) == 0: win()\n"
    "setup = {'x86_64': 206, 'aarch64': 0}[os.uname().machine]\n"
    "if libc.syscall(setup, 1, ctypes.create_string_buffer(8)) == 0: win()",
    "namespaces": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: win()",
    "processes": "made = 0\n"
    "try:\n"
    "    for _ in range(200):\n"
    "        pid = os.fork()\n"
    "        if pid == 0: __import__('time').sleep(3); os._exit(0)\n"
    "        made += 1\n"
    "except OSError: pass\n"
    "if made > 100: __import__('time').sleep(1); win()",
}
"""What a box must not be able to do, as the body of an attack that calls win() when it could. `processes` runs by
itself: where the watch is what counts them, it ends the run."""

HONEST: Mapping[str, str] = {
    "threads": "import os, threading, time\n"
    "threads = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(24)]\n"
    "for thread in threads: thread.start()\n"
    "children = [os.fork() for _ in range(2)]\n"
    "if 0 in children: os._exit(0)\n"
    "for pid in children: os.waitpid(pid, 0)\n"
    "for thread in threads: thread.join()\n"
    "print('fine')",
    "tempfile": "import tempfile\n"
    "with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as other:\n"
    "    file = open(folder + '/x', 'w+')\n"
    "    other.write(b'fine'); file.write('fine'); file.seek(0); print(file.read())",
}
"""What every program may do; each prints `fine`."""


class Runner(Protocol):
    """What can run a Python job."""

    async def python(self, limits: Limits, frame: bytes, stdin: bytes) -> Outcome:
        """One job."""


_SAME_PROCESSES = """
def began(pid):
    try: return open('/proc/%d/stat' % pid).read().rpartition(') ')[2].split()[19]
    except OSError: return ''
PIDS = [pid for pid, start in PIDS.items() if began(pid) in ('', start)]
"""
"""A pid namespace counts anew from 1: in a container, whose processes have small numbers, too, a box's own process may
have the number of one outside. Where a box sees processes at all, their starts tell them apart."""


def program(facts: Mapping[str, object], names: Sequence[str]) -> str:
    """An attack on these of PROBES; prints a JSON list of what it could do."""
    given = (f"{name} = {value!r}" for name, value in facts.items())
    lines = ["import os, sys, json", *given, _SAME_PROCESSES, "won = []"]
    for name in names:
        lines += [
            "try:",
            "    def attack(win):",
            textwrap.indent(PROBES[name], "        "),
            f"    attack(lambda: won.append({name!r}))",
            "except BaseException: pass",
        ]
    return "\n".join([*lines, "print(json.dumps(sorted(set(won))), flush=True)", "os._exit(0)"])


@contextlib.contextmanager
def bait(pids: Sequence[int], secret: str, home: str, backend: str) -> Iterator[Mapping[str, object]]:
    """What the attacks hunt for, by the names that they use: a file, one in the home, a listener, processes; and the
    system calls that this backend's filter refuses, with its errors."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        canary = stack.enter_context(tempfile.NamedTemporaryFile("w", dir="/tmp", prefix="rayzero-canary-"))
        os.chmod(canary.name, 0o644)
        yield {
            "CANARY": canary.name,
            "HOME": _something_in(home, stack),
            "PORT": listener.getsockname()[1],
            "SECRET": secret,
            "PIDS": {pid: str(started(pid)) for pid in pids},
            "CALLS": seccomp.numbered_refusals(namespaces=backend == "bwrap"),
        }


def _something_in(home: str, stack: contextlib.ExitStack) -> str:
    """A file of ours in the home; where it cannot be written to, whatever lies there."""
    with contextlib.suppress(OSError):
        made = tempfile.NamedTemporaryFile("w", dir=home or "/nonexistent", prefix=".rayzero-canary-")  # noqa: SIM115
        canary = stack.enter_context(made)
        os.chmod(canary.name, 0o644)
        return canary.name
    with contextlib.suppress(OSError, StopIteration):
        return next(os.scandir(home or "/nonexistent")).path
    return ""


def verdict(outcome: Outcome) -> str:
    """What is wrong with an attack's outcome; empty where the box held."""
    if outcome.ended == "processes":
        return ""
    if outcome.ended != "exited":
        return f"the attack ended as {outcome.ended}: {outcome.detail}"
    won = None
    with contextlib.suppress(ValueError):
        won = json.loads(outcome.stdout)
    if won is None:
        return f"the attack gave no answer: {(outcome.result + outcome.stdout)[-300:]!r}"
    return f"it could {', '.join(won)}" if won else ""


def shortfall(outcome: Outcome) -> str:
    """Why an honest program did not come through; empty where it did."""
    if outcome.ended == "exited" and outcome.stdout == b"fine\n":
        return ""
    return f"it ended as {outcome.ended} {outcome.detail} {outcome.result[4:304].decode(errors='replace')}".strip()


async def attack(runner: Runner, home: str, backend: str, *, runs_programs: bool = True) -> None:
    """BoxError naming every promise that the backend does not keep. `runs_programs`: the boxes are for any program,
    and owe an honest one what it may do; those of a warm interpreter are for what that has imported."""
    limits = Limits(cpu_s=5, wall_s=15, memory_bytes=1 << 30)

    async def run(source: str) -> Outcome:
        job = job_frame({"mode": "stdio", "source": source})
        return await asyncio.wait_for(runner.python(limits, job, b""), 30)

    with bait([os.getpid(), os.getppid()], "RAYZERO_NO_SUCH_SECRET", home, backend) as facts:
        for names in ([name for name in PROBES if name != "processes"], ["processes"]):
            if reason := verdict(await run(program(facts, names))):
                raise BoxError(f"the self-test broke out: {reason}")
    for name, source in HONEST.items() if runs_programs else ():
        if reason := shortfall(await run(source)):
            raise BoxError(f"the self-test's honest program ({name}) failed: {reason}")
