"""`rayzero grade` as a user runs it: programs that hang beside healthy ones, text of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system import AS_ROOT, needs

HANGING = (
    "import time; time.sleep(600)",
    "while True: pass",
    "print(7**200_000_000 % 10)",
    "import os\nwhile True: os.fork()",
    "x = [0]\nwhile True: x += x",
)
ODD_TEXTS = (
    "",
    "\0",
    "\ud800",
    "\u202e<think>\u202d</think>",
    "<think>" * 1000,
    "</think>" * 1000,
    "\\boxed{" * 10_000,
    "{" * 100_000,
    "x" * 1_000_000,
    "<think>t</think>\\boxed{" + "9" * 1_000_000 + "}",
    "<THINK>t</THINK>\\BOXED{9}",
    "<think>t</think>\\boxed{9}\r\n\u2028\u0085",
)


def grade(tmp_path: Path, reward: str, lines: list[dict[str, Any]], *options: str) -> list[dict[str, Any]]:
    source, target = tmp_path / "cases.jsonl", tmp_path / "verdicts.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "rayzero", "grade", "--reward", reward, "--in", str(source), "--out", str(target)]
    subprocess.run([*command, *options], check=True, timeout=300)
    verdicts = [json.loads(line) for line in target.read_text().splitlines()]
    assert [verdict["id"] for verdict in verdicts] == [line["id"] for line in lines]
    return verdicts


@needs("bwrap")
def test_hanging_programs_change_no_healthy_verdict(tmp_path: Path) -> None:
    tests = [{"stdin": "4\n", "expected": "8\n"}]
    lines = []
    for index in range(60):
        code = HANGING[index // 12] if index % 12 == 5 else f"print(int(input()) * 2)  # {index}"
        code = code.replace("* 2", "* 3") if index % 12 == 7 else code
        lines.append({"id": index, "code": code, "language": "python", "tests": tests, "time_limit_s": 1})
    verdicts = grade(tmp_path, "code", lines)
    expected = ["wrong" if index % 12 in (5, 7) else "correct" for index in range(60)]
    assert [verdict["status"] for verdict in verdicts] == expected
    assert [verdict["reward"] for verdict in verdicts] == [float(status == "correct") for status in expected]
    assert all(len(verdict["tests"]) == 1 for verdict in verdicts)


KEYS = {"math": {"answer": "9"}, "format": {}, "language": {"target": "en"}}


@pytest.mark.parametrize(("reward", "keys"), KEYS.items())
def test_odd_text_is_graded_like_any_other(tmp_path: Path, reward: str, keys: dict[str, Any]) -> None:
    lines = [{"id": index, "completion": text, **keys} for index, text in enumerate(ODD_TEXTS)]
    verdicts = grade(tmp_path, reward, lines)
    assert {verdict["status"] for verdict in verdicts} <= {"correct", "wrong"}
    if reward == "math":
        assert [verdict["id"] for verdict in verdicts if verdict["status"] == "correct"] == [len(ODD_TEXTS) - 1]


SYSTEM_PYTHON = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")


@AS_ROOT
@needs("setpriv")
def test_a_plain_user_gets_the_same_verdicts() -> None:
    interpreter = next(filter(_others_may_run, (Path(sys.executable).resolve(), SYSTEM_PYTHON)), None)
    if interpreter is None:
        pytest.skip(f"no other user can run {sys.executable}, and there is no {SYSTEM_PYTHON}")
    case = json.dumps({"id": 1, "completion": "\\boxed{9}", "answer": "9"}) + "\n"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(interpreter), "-m", "rayzero"]
    command += ["grade", "--reward", "math", "--in", "-"]
    packages = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": packages, "HOME": "/nonexistent"}
    output = subprocess.run(
        command, check=True, timeout=60, input=case, text=True, stdout=subprocess.PIPE, env=environment
    ).stdout
    assert json.loads(output)["status"] == "correct"


def _others_may_run(interpreter: Path) -> bool:
    """An interpreter below root's home cannot be reached by anybody else."""
    return interpreter.is_file() and all(folder.stat().st_mode & 0o005 == 0o005 for folder in interpreter.parents)
