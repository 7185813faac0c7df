"""Judge the corpus. As a script it does so as a plain user beside many threads of its own:
`python -m tests.corpus.judging UID PYTHON BACKEND EVERY` judges every EVERYth Python program and prints what went
wrong."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - asyncio imports it late: out of reach of a plain user by then
import contextlib
import ctypes
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from rayzero.rewards.code.judge import CodeJudge, CodeVerdict
from rayzero.rewards.sandbox import client
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus
from tests.corpus.problems import Program, read

SECRET = "RAYZERO_CORPUS_SECRET"
NEEDS_NAMESPACES = {"python/multiprocessing", "python/reads-own-status"}
"""Honest programs that need a private /dev/shm or /proc, which Landlock alone does not give."""
NUM_NEWEST = 35
"""Of the last programs of the corpus none is left out."""


@contextlib.contextmanager
def laid_bait() -> Iterator[Callable[[str], str]]:
    """Files, sockets, a process, shared memory and a secret in the environment, to be written into the programs that
    hunt for them."""
    os.environ["RAYZERO_TOKEN"] = SECRET
    libc = ctypes.CDLL(None)
    segment = libc.shmget(0, 4096, 0o600)
    with contextlib.ExitStack() as stack:
        canary, home = (_canary(stack, folder) for folder in ("/tmp", os.environ.get("HOME", "")))
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        os.chmod(folder, 0o755)
        mailbox = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        mailbox.bind(folder + "/socket")
        os.chmod(folder + "/socket", 0o777)
        baits = {
            "%CANARY%": canary, "%HOME%": home or canary, "%SECRET%": SECRET, "%PORT%": str(listener.getsockname()[1]),
            "%SOCKET%": folder + "/socket", "%PID%": str(os.getpid()), "%SEGMENT%": str(segment),
        }  # fmt: skip
        try:
            yield lambda text: re.sub("%[A-Z]+%", lambda name: baits.get(name[0], name[0]), text)
        finally:
            libc.shmctl(segment, 0, None)
            del os.environ["RAYZERO_TOKEN"]


def _canary(stack: contextlib.ExitStack, folder: str) -> str:
    """A file that everybody may read, if permissions were all; "" where the folder cannot be written to."""
    try:
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", dir=folder or "/nonexistent", prefix=".canary-"))
    except OSError:
        return ""
    file.write("canary")
    file.flush()
    os.chmod(file.name, 0o644)
    return file.name


async def judge_all(backend: str, programs: list[Program]) -> dict[str, CodeVerdict]:
    """The verdict of every program, by language and name."""
    judge = CodeJudge(SandboxSettings(backend=backend))
    limit = asyncio.Semaphore(6)
    with laid_bait() as bait:

        async def one(program: Program) -> tuple[str, CodeVerdict]:
            async with limit:
                verdict = await judge.run(bait(program.source), program.spec, is_program=True)
                return f"{program.language} {program.name}", verdict

        try:
            assert await judge.start() == backend
            return dict(await asyncio.gather(*map(one, programs)))
        finally:
            await judge.close()


async def judged(backend: str, programs: list[Program]) -> dict[str, CodeVerdict]:
    """Verdicts by name. Who got no core for its time gets an ERROR that says so: it is judged once more, by itself."""
    verdicts = await judge_all(backend, programs)
    starved = {name for name, verdict in verdicts.items() if "the machine is overloaded" in (verdict.reason or "")}
    again = [program for program in programs if f"{program.language} {program.name}" in starved]
    return verdicts | (await judge_all(backend, again) if again else {})


def main(uid: int, python: str, backend: str, every: int) -> None:
    """Drop to `uid` (the supervisor is started with `python`, which that user can reach) and judge Python programs
    beside as many threads as a Ray has."""
    sys.executable = python
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    bad: dict[str, str] = {}
    for folder, wanted in (("hostile", VerdictStatus.WRONG), ("honest", VerdictStatus.CORRECT)):
        programs = [
            program
            for program in read(folder)
            if program.language == "python" and not (backend == "landlock" and program.name in NEEDS_NAMESPACES)
        ]
        programs = [*programs[: len(programs) - NUM_NEWEST : every], *programs[-NUM_NEWEST:]]
        verdicts = asyncio.run(judged(backend, programs))
        bad |= {name: f"{v.status} {v.reason}" for name, v in verdicts.items() if v.status is not wanted}
    print(json.dumps({"uid": os.getuid(), "bad": bad}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
