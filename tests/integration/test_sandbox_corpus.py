"""Hundreds of hostile and honest programs: no hostile one is judged correct, every honest one is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rayzero.rewards.code.languages.base import ToolchainError
from rayzero.rewards.code.languages.go import toolchain as go
from rayzero.rewards.code.languages.java import jdk
from rayzero.rewards.code.languages.javascript import node
from rayzero.rewards.code.languages.rust import toolchain as rust
from rayzero.rewards.sandbox.inside.confine import landlock_abi
from rayzero.services.schema.messages import VerdictStatus
from tests.corpus.judging import NEEDS_NAMESPACES, judged
from tests.corpus.problems import Program, read
from tests.system import AS_ROOT, needs

BACKENDS = [
    pytest.param("bwrap", marks=needs("bwrap", "g++")),
    pytest.param(
        "landlock", marks=pytest.mark.skipif(landlock_abi() < 6, reason="Landlock ABI 6 (Linux 6.12) is needed")
    ),
]
SLOW_TO_COMPILE = {"cpp", "java", "go", "rust"}
TOOLCHAINS: dict[str, Callable[[], object]] = {"javascript": node, "java": jdk, "go": go, "rust": rust}


def offered(folder: str) -> list[Program]:
    """The programs whose language this machine has."""
    kept = []
    for program in read(folder):
        try:
            TOOLCHAINS.get(program.language, lambda: None)()
            kept.append(program)
        except ToolchainError:
            continue
    return kept


def sampled(programs: list[Program]) -> list[Program]:
    """Every fifth of those whose compiler costs seconds; once compiled, they are run like any other."""
    slow = [program for program in programs if program.language in SLOW_TO_COMPILE]
    return [program for program in programs if program.language not in SLOW_TO_COMPILE] + slow[::5]


def test_the_corpus_is_as_large_as_promised() -> None:
    hostile, honest = read("hostile"), read("honest")
    assert len(hostile) >= 100
    assert len(honest) >= 100
    everything = {"python", "cpp", "javascript", "java", "go", "rust"}
    assert {program.language for program in hostile} == {program.language for program in honest} == everything
    assert len({(program.language, program.name) for program in hostile}) == len(hostile)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_no_hostile_program_passes(backend: str) -> None:
    programs = offered("hostile")
    verdicts = await judged(backend, sampled(programs) if backend == "landlock" else programs)
    assert not {name: v.reason for name, v in verdicts.items() if v.status is not VerdictStatus.WRONG}


async def right_ones_that_fail(backend: str, programs: list[Program]) -> dict[str, str]:
    """By name: why they are not judged correct."""
    if backend == "landlock":
        programs = [program for program in programs if program.name not in NEEDS_NAMESPACES]
    verdicts = await judged(backend, programs)
    return {name: verdict.reason for name, verdict in verdicts.items() if verdict.status is not VerdictStatus.CORRECT}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_honest_program_passes(backend: str) -> None:
    assert not await right_ones_that_fail(backend, sampled(offered("honest")))


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_honest_program_of_every_language_passes(backend: str) -> None:
    assert not await right_ones_that_fail(backend, offered("honest"))


@pytest.mark.parametrize("backend", BACKENDS)
@AS_ROOT
@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="no interpreter that a plain user can reach")
def test_the_same_as_a_plain_user_beside_a_busy_ray(backend: str) -> None:
    command = [sys.executable, "-m", "tests.corpus.judging", "65534", "/usr/bin/python3", backend, "4"]
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # where that user can go
        os.chmod(home, 0o777)
        environment = {**os.environ, "HOME": home}
        process = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500, env=environment)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == {"uid": 65534, "bad": {}}
