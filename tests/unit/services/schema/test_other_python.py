"""Another Python: what is wrong with it is one sentence with the remedy."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from rayzero.services.schema import other_python
from rayzero.services.schema.other_python import OtherPython


def test_a_package_that_is_there_in_that_version_is_no_fault() -> None:
    version = metadata.version("pytest")
    assert OtherPython(sys.executable).fault("pytest", version) == ""
    assert OtherPython(sys.executable).fault("pytest", f"{version.rpartition('.')[0]}.999") == ""


@pytest.mark.parametrize(
    ("python", "package", "wanted", "words"),
    [
        ("/no/such/python", "pytest", "1.0.0", ("cannot be started (No such file", "python3 -m venv FOLDER")),
        ("no-such-python", "pytest", "1.0.0", ("cannot be started", "FOLDER/bin/pip install pytest==1.0.0")),
        ("/bin/echo", "pytest", "1.0.0", ("/bin/echo is no Python", "bin/python")),
        (sys.executable, "no-such-package", "1.0.0", ("has no package no-such-package", "-m pip install")),
        (sys.executable, "pytest", "1.0.0", ("has pytest ", "and 1.0 is needed", "-m pip install pytest==1.0.0")),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(python: str, package: str, wanted: str, words: tuple[str, ...]) -> None:
    fault = OtherPython(python).fault(package, wanted)
    assert all(word in fault for word in words), fault


def test_one_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nsleep 60\n", encoding="ascii")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(other_python, "PATIENCE_S", 0.2)
    assert "said nothing within 0.2 s" in OtherPython(str(tmp_path / "python")).fault("pytest", "1.0.0")


def test_it_runs_files_of_rayzero_without_rayzero(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("WORD = 'found'\n", encoding="ascii")
    other = OtherPython(sys.executable, (str(tmp_path),))
    call = "import mine; print(mine.WORD, sys.modules['rayzero.rewards.children.control'].packed({'a': 1}), "
    call += "sys.argv[3], 'rayzero' in sys.modules)"
    command = other.command(("rayzero.rewards.children.control",), call, "given")
    environment = other.environment({"PATH": "/bin", "PYTHONPATH": "/elsewhere", "VIRTUAL_ENV": "/venv"})
    assert environment == {"PATH": "/bin"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["found", 'b\'{"a":', "1}\\n'", "given", "False"]
