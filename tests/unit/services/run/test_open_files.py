"""The soft limit on open files is raised, and only up to the hard one."""

from __future__ import annotations

import resource
import subprocess
import sys

CODE = """
import resource
from rayzero.services.run.open_files import raise_open_files
raise_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def limits_after(soft: int, hard: int) -> tuple[int, ...]:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    return tuple(map(int, done.stdout.split()))


def test_up_to_the_hard_limit() -> None:
    assert limits_after(256, 2048) == (2048, 2048)
    assert limits_after(2048, 2048) == (2048, 2048)
