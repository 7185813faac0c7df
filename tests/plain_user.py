"""What a plain user sees of this machine, asked by root, in a process of its own: `python -m tests.plain_user UID
COMMAND`.

doctor   examines the sandbox beside as many threads of that user as a Ray has; prints the report as JSON
full     judges a right C++ program where the user may start no more processes; prints the verdict as JSON
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rayzero.rewards.code.judge import CodeJudge
from rayzero.rewards.sandbox import doctor
from rayzero.rewards.sandbox.processes import scan
from rayzero.services.schema.config.sandbox import SandboxSettings

UID = 48001
PYTHON = "/usr/bin/python3"
"""One that every user can execute; root's may lie in root's home."""
MASK = "mount -t tmpfs -o ro,size=4k mask /proc/sys/fs && exec "
"""As container engines do it: something is mounted over a part of /proc."""


def ask(command: str, *, masked: bool = False) -> Any:
    """Run a command of this file as `UID`, or as the present user where that is not root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        os.chmod(home, 0o777)
        line = [sys.executable, "-m", "tests.plain_user", str(UID), command]
        if masked:
            line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MASK + '"$@"', "sh", *line]
        environment = {**os.environ, "HOME": home}
        root = Path(__file__).parents[1]
        done = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=400, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _doctor() -> Any:
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return doctor.examine().to_dict()


def _num_threads() -> int:
    """Of this user, on the whole machine."""
    total = 0
    for process in scan():
        with contextlib.suppress(FileNotFoundError):
            if os.stat(f"/proc/{process.pid}").st_uid == os.getuid():
                total += process.num_threads
    return total


async def _full() -> Any:
    judge = CodeJudge(SandboxSettings(backend="landlock"))
    try:
        await judge.start()
        limit = _num_threads() + 2  # of which a shell and a compiler are the first
        resource.prlimit(judge.pids[0], resource.RLIMIT_NPROC, (limit, limit))
        spec = {"language": "cpp", "tests": [{"stdin": "", "expected": "3"}]}
        program = '#include <stdio.h>\nint main() { puts("3"); }'
        verdict = await judge.run(program, spec, is_program=True)
        return {"status": verdict.status, "reason": verdict.reason}
    finally:
        await judge.close()


def main() -> None:
    """Become the user, then do as asked."""
    uid, command = int(sys.argv[1]), sys.argv[2]
    if os.geteuid() == 0:
        sys.executable = PYTHON
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    print(json.dumps(_doctor() if command == "doctor" else asyncio.run(_full())))


if __name__ == "__main__":
    main()
