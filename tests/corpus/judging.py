"""Judge the corpus. As a script it does so as a plain user: `python -m tests.corpus.judging UID PYTHON` prints what
went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator

from rayzero.rewards.code.judge import CodeJudge, CodeVerdict
from rayzero.rewards.sandbox import client
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus
from tests.corpus.problems import Program, read

SECRET = "RAYZERO_CORPUS_SECRET"


@contextlib.contextmanager
def laid_bait() -> Iterator[Callable[[str], str]]:
    """A canary file, a listener and a secret in the environment, to be written into the programs that hunt for them."""
    os.environ["RAYZERO_TOKEN"] = SECRET
    with socket.socket() as listener, tempfile.NamedTemporaryFile("w", dir="/tmp") as canary:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        canary.write("canary")
        canary.flush()
        os.chmod(canary.name, 0o644)
        port = str(listener.getsockname()[1])
        try:
            yield lambda text: text.replace("%CANARY%", canary.name).replace("%PORT%", port).replace("%SECRET%", SECRET)
        finally:
            del os.environ["RAYZERO_TOKEN"]


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


def main(uid: int, python: str) -> None:
    """Drop to `uid` (the supervisor is started with `python`, which that user can reach) and judge the Python
    programs."""
    sys.executable = python
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    bad: dict[str, str] = {}
    for folder, wanted in (("hostile", VerdictStatus.WRONG), ("honest", VerdictStatus.CORRECT)):
        programs = [program for program in read(folder) if program.language == "python"]
        verdicts = asyncio.run(judge_all("bwrap", programs))
        bad |= {name: f"{v.status} {v.reason}" for name, v in verdicts.items() if v.status is not wanted}
    print(json.dumps({"uid": os.getuid(), "bad": bad}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
