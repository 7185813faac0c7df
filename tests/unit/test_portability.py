"""What needs no engine runs where there is no Linux: `grade` and `samples`, with the platform patched.

No other system is at hand: each process here, children included, is made to say that it is another one, and lacks what
Linux alone has, and what Windows lacks besides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rayzero.services.observe.recorder import Recorder
from rayzero.services.store.run_directory import RunDirectory
from tests.fakes import make_group, make_recipe
from tests.source_tree import ROOT

PATCH = """
import builtins, ctypes, os, platform, signal, socket, sys, sysconfig, urllib.request, zoneinfo

sysconfig.get_config_vars()

real_import, real_open, real_pair = builtins.__import__, builtins.open, socket.socketpair
LACKING = {"fcntl", "resource", "pwd", "grp", "termios"}

def without(name, scope=None, *rest, **keys):
    if name in LACKING and str((scope or {}).get("__name__", "")).startswith("rayzero"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real_import(name, scope, *rest, **keys)

def without_proc(file, *rest, **keys):
    if str(file).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", str(file))
    return real_open(file, *rest, **keys)

def without_seqpacket(family=None, kind=socket.SOCK_STREAM, *rest):
    if kind == socket.SOCK_SEQPACKET:
        raise OSError(43, "Protocol not supported")
    return real_pair(family, kind, *rest)

builtins.__import__, builtins.open, socket.socketpair = without, without_proc, without_seqpacket
ctypes.CDLL = lambda *_, **__: object()
del os.sched_getaffinity, signal.pidfd_send_signal, os.pidfd_open
sys.platform = "darwin"
platform.system = lambda: "Darwin"
"""
CASES = [
    ({"id": "a", "completion": r"so \boxed{\frac{1}{2}}", "answer": "0.5"}, "correct"),
    ({"id": "b", "completion": r"so \boxed{3}", "answer": "0.5"}, "wrong"),
    ({"id": "c", "completion": r"\boxed{\sum_{n=1}^{10^{9}} \frac{n!}{n^n}}", "answer": "0.123456789"}, None),
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch/sitecustomize.py").write_text(PATCH)
    path = os.pathsep.join((str(tmp_path / "patch"), str(ROOT)))
    return {**os.environ, "PYTHONPATH": path, "RAYZERO_CACHE": str(tmp_path / "cache")}


def rayzero(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayzero", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_patch_reaches_every_process(elsewhere: dict[str, str]) -> None:
    code = "import sys, rayzero.rewards.sandbox.runs"
    done = subprocess.run([sys.executable, "-c", code], env=elsewhere, capture_output=True, text=True, check=False)
    assert "No module named 'resource'" in done.stderr


def test_grade_runs_elsewhere(elsewhere: dict[str, str], tmp_path: Path) -> None:
    cases, verdicts = tmp_path / "cases.jsonl", tmp_path / "verdicts.jsonl"
    cases.write_text("".join(json.dumps(case) + "\n" for case, _ in CASES))
    done = rayzero(elsewhere, "grade", "--reward", "math", "--in", str(cases), "--out", str(verdicts), "--workers", "2")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["status"] for line in verdicts.read_text().splitlines()]
    assert [status for status, (_, wanted) in zip(found, CASES, strict=True) if wanted] == ["correct", "wrong"]


def test_samples_and_recipe_run_elsewhere(elsewhere: dict[str, str], tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    directory.release()
    Recorder(directory).on_update({"update": 1, "time_s": 1.0, "completion_tokens": 1}, [make_group(0)])
    done = rayzero(elsewhere, "samples", str(directory.path), "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rollouts"]
    assert rayzero(elsewhere, "recipe").returncode == 0
