"""The names of `rayzero bench`: all of them in a checkout; in a wheel those of benchmarks/ say what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from rayzero.services.bench import checkout
from rayzero.services.cli.app import app

INSTALLED = {"loop", "sync", "learner", "rewards"}

WHEEL = """\
import sys
from rayzero.services.bench import checkout
checkout.find = lambda module: None
from rayzero.services.cli.app import main
sys.argv = ["rayzero", *sys.argv[1:]]
main()
"""


def wheel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where benchmarks/ is not found."""
    return subprocess.run([sys.executable, "-c", WHEEL, *arguments], capture_output=True, text=True, check=False)


def test_a_checkout_has_every_name() -> None:
    shown = CliRunner().invoke(app, ["bench", "--help"]).output
    assert all(f" {name} " in shown for name in INSTALLED | set(checkout.NAMES))
    commands = checkout.find("commands")
    assert commands is not None
    assert {command.name for command in commands.commands.registered_commands} == set(checkout.NAMES)


def test_options_are_those_of_the_checkout() -> None:
    refused = CliRunner().invoke(app, ["bench", "all", "--device", "tpu"])
    assert refused.exit_code == 2 and "cpu or cuda" in refused.output


def test_a_wheel_says_which_names_need_a_checkout() -> None:
    done = wheel("bench", "time-to-reward", "recipe.yaml", "--seeds", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {checkout.NEEDED}"
    assert all(name in checkout.NEEDED for name in checkout.NAMES)
    shown = wheel("bench", "--help").stdout
    assert all(f" {name} " in shown for name in INSTALLED | set(checkout.NAMES))


def test_a_folder_of_another_package_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    assert checkout.find("commands", tmp_path) is None


def test_the_readme_names_every_file() -> None:
    folder = checkout.ROOT / "benchmarks"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*.py") if file.name != "__init__.py"}
    assert [file for file in sorted(files) if f"`{file}`" not in readme] == []
