"""A run outlives its terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

AFTER_THE_PIPE = """
import sys, time
from rayzero.services.observe.progress import ProgressView
from rayzero.services.observe.run_terminal import run_console
from rayzero.services.observe.time_left import TimeLeft
console = run_console()
console.print("first")
sys.stdin.readline()
with ProgressView(console, TimeLeft(3)) as view:
    view.say("second")
    for number in range(2000):
        console.print("x" * 100)
print("from elsewhere", flush=True)
sys.stderr.write("went on")
sys.exit(7)
"""


def test_a_closed_pipe_quietens_the_console_and_ends_nothing() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", AFTER_THE_PIPE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == b"first\n"
    child.stdout.close()
    child.stdin.write(b"\n")
    child.stdin.close()
    said = child.stderr.read()
    child.stderr.close()
    assert said.endswith(b"the run goes on\nwent on")
    assert child.wait(30) == 7


def test_a_terminal_that_is_gone_is_no_error_either(monkeypatch: pytest.MonkeyPatch) -> None:
    from rayzero.services.observe.run_terminal import run_console

    class Gone:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError("no file")

    monkeypatch.setattr(sys, "stdout", Gone())
    console = run_console()
    assert console.is_terminal
    console.print("into nothing")
