"""Packages for the boxes: what is copied, and what never is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rayzero.rewards.sandbox import host, packages


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two distributions, one of which needs the other and brings a script, tests and a path that leads out."""
    site = tmp_path / "site"
    for name, needs, files in (
        ("outer-thing", "Requires-Dist: inner_thing>=1\nRequires-Dist: other ; extra == 'x'\n",
         ["outer_thing/__init__.py", "outer_thing/tests/test_a.py", "../bin/outer", "../../secret"]),
        ("inner-thing", "", ["inner_thing.py"]),
    ):  # fmt: skip
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        for file in files:
            path = site / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x = 1\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    (tmp_path / "scratch" / host.PACKAGES).mkdir(parents=True)
    return tmp_path / "scratch"


def test_what_a_package_needs_comes_along_and_nothing_else(installed: Path) -> None:
    key = packages.provide(["outer-thing"], str(installed), None)
    folder = installed / host.PACKAGES / key
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"outer_thing/__init__.py", "inner_thing.py"}
    assert packages.provide(["Outer_Thing"], str(installed), None) == key
    assert [path.name for path in (installed / host.PACKAGES).iterdir()] == [key]


def test_a_missing_package_is_named_with_its_fix(installed: Path) -> None:
    with pytest.raises(packages.PackageError, match="pip install no-such-thing"):
        packages.provide(["no-such-thing"], str(installed), None)


def test_another_python_is_refused(installed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "bin" / "python"
    for folder in (other.parent, tmp_path / "other" / "lib" / "python3.0"):
        folder.mkdir(parents=True)
    other.write_text("#!/bin/sh\necho 2.7\n")
    other.chmod(0o755)
    with pytest.raises(packages.PackageError, match=r"boxes run 2\.7"):
        packages.provide(["outer-thing"], str(installed), str(other))
