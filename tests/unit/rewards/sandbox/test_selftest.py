"""The self-test knows the processes that it hunts for from others of the same number."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rayzero.rewards.sandbox.selftest import bait, program
from rayzero.services.schema.processes import started


def attack(pids: dict[int, str]) -> list[str]:
    source = program({"PIDS": pids}, ["signal"])
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=30)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("begins_as_said", "won"), [(True, ["signal"]), (False, [])])
def test_a_process_of_its_own_that_has_the_number_of_one_outside_is_no_breakout(
    begins_as_said: bool, won: list[str]
) -> None:
    """As in a container, where both a box and rayzero have a process 1."""
    assert attack({os.getpid(): str(started(os.getpid())) if begins_as_said else "1"}) == won


def test_the_bait_says_when_each_process_began() -> None:
    with bait([os.getpid()], "secret", "", "landlock") as facts:
        assert facts["PIDS"] == {os.getpid(): str(started(os.getpid()))}
