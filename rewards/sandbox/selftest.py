"""The attack that every supervisor makes on its own backend before it runs anybody's program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import Mapping
from typing import Protocol

from rayzero.rewards.sandbox.boxes import BoxError
from rayzero.rewards.sandbox.limits import Limits, Outcome

PROBES: Mapping[str, str] = {
    "read": "open(CANARY).read(); win()",
    "list": "names = os.listdir(os.path.dirname(CANARY)); win() if os.path.basename(CANARY) in names else None",
    "write": "\n".join(
        f"try: open({path!r}, 'w').write('x'); win()\nexcept OSError: pass"
        for path in ("/probe", "/usr/probe", "/dev/probe", "/etc/probe", "/var/tmp/probe", "/proc/probe")
    ),
    "environment": "for name in (['/proc/1/environ', '/proc/self/environ'] + ['/proc/%s/environ' % p for p in PIDS]):\n"
    "    try: win() if SECRET in open(name, 'rb').read().decode('latin1') else None\n"
    "    except OSError: pass\n"
    "if SECRET in str(os.environ): win()",
    "network": "s = __import__('socket').socket(); s.settimeout(0.5); s.connect(('127.0.0.1', PORT)); win()",
    "signal": "for p in PIDS:\n    try: os.kill(p, 0); win()\n    except OSError: pass",
    "trace": "import ctypes\nfor p in PIDS:\n    if ctypes.CDLL(None).ptrace(16, p, 0, 0) == 0: win()",
    "descriptors": "found = []\nfor n in range(4, 256):\n"
    "    try: os.fstat(n); found.append(n)\n    except OSError: pass\n"
    "if found: win()",
    "namespaces": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: win()",
    "processes": "made = 0\n"
    "try:\n"
    "    for _ in range(200):\n"
    "        pid = os.fork()\n"
    "        if pid == 0: __import__('time').sleep(3); os._exit(0)\n"
    "        made += 1\n"
    "except OSError: pass\n"
    "if made > 100: win()",
}
"""What a box must not be able to do, as the body of an attack that calls win() when it could. Processes last: it
fills the table."""


class Runner(Protocol):
    """What can run a Python job."""

    async def python(self, limits: Limits, frame: bytes, stdin: bytes) -> Outcome:
        """One job."""


def program(facts: Mapping[str, object], only: str | None = None) -> str:
    """An attack on everything in PROBES (or on one); prints a JSON list of what it could do."""
    lines = ["import os, sys, json", *(f"{name} = {value!r}" for name, value in facts.items()), "won = []"]
    for name, body in PROBES.items():
        if only not in (None, name):
            continue
        indented = "\n".join("        " + line for line in body.split("\n"))
        lines += [
            "try:",
            "    def attack(win):",
            indented,
            f"    attack(lambda: won.append({name!r}))",
            "except BaseException: pass",
        ]
    return "\n".join([*lines, "print(json.dumps(sorted(set(won))), flush=True)", "os._exit(0)"])


def frame(job: Mapping[str, object], limits: Limits) -> bytes:
    """A job as the bytes that a Python box reads."""
    body = json.dumps({**job, "limits": limits.rlimits()}).encode()
    return struct.pack("!I", len(body)) + body


async def attack(runner: Runner) -> None:
    """BoxError naming every promise that the backend does not keep."""
    limits = Limits(cpu_s=5, wall_s=15, memory_bytes=1 << 30)
    listener = socket.socket()
    with listener, tempfile.NamedTemporaryFile("w", dir="/tmp", prefix="rayzero-canary-") as canary:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        canary.write("canary")
        canary.flush()
        os.chmod(canary.name, 0o644)
        facts = {
            "CANARY": canary.name,
            "PORT": listener.getsockname()[1],
            "SECRET": "RAYZERO_NO_SUCH_SECRET",
            "PIDS": [os.getpid(), os.getppid()],
        }
        job = {"mode": "stdio", "source": program(facts)}
        outcome = await asyncio.wait_for(runner.python(limits, frame(job, limits), b""), 30)
    if outcome.ended != "exited":
        raise BoxError(f"the self-test ended as {outcome.ended}: {outcome.detail}")
    won = None
    with contextlib.suppress(ValueError):
        won = json.loads(outcome.stdout)
    if won is None:
        raise BoxError(f"the self-test gave no answer: {(outcome.result + outcome.stdout)[-300:]!r}")
    if won:
        raise BoxError(f"the self-test broke out: it could {', '.join(won)}")
