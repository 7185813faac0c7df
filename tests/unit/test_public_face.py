"""`import rayzero`, `python -m rayzero`: what a program of one's own may rely on."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import rayzero

NAMES = [
    "Learner", "Policy", "Recipe", "Rubric",
    "check", "evaluate", "load_recipe", "losses", "messages", "train", "verify",
]  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_the_public_names_are_these() -> None:
    assert rayzero.__all__ == NAMES
    assert set(NAMES) <= set(dir(rayzero))


def test_every_public_name_is_there() -> None:
    for name in NAMES:
        assert getattr(rayzero, name) is not None


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'; it offers Learner, Policy"):
        _ = rayzero.trian


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, rayzero; sys.exit(bool({'torch', 'ray', 'vllm', 'pydantic'} & set(sys.modules)))"
    assert run("-c", code).returncode == 0


def test_an_answer_is_verified_without_a_recipe() -> None:
    assert rayzero.verify(r"so \boxed{\frac{1}{2}}", "0.5").correct


def test_the_module_is_the_command() -> None:
    done = run("-m", "rayzero", "--version")
    assert done.returncode == 0 and done.stdout == f"{metadata.version('rayzero')}\n"


def test_the_way_in_of_old_is_refused_with_the_new_one() -> None:
    done = run("-m", "services.cli", "train")
    assert done.returncode == 2 and "`python -m services.cli` is `python -m rayzero` now" in done.stderr
