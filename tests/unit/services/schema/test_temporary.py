"""Folders that end with their process."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from rayzero.services.schema.temporary import own_folder, remove_dead_folders


def test_folders_of_the_dead_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f"rayzero-{dead.pid}-abc" / "socket").mkdir(parents=True)
    kept = [tmp_path / f"rayzero-{os.getppid()}-abc", tmp_path / "rayzero-storm-abc", tmp_path / "another"]
    for folder in kept:
        folder.mkdir()
    own = own_folder()
    assert own.name.startswith(f"rayzero-{os.getpid()}-")
    assert sorted(tmp_path.iterdir()) == sorted([own, *kept])
    remove_dead_folders()
    assert sorted(tmp_path.iterdir()) == sorted([own, *kept])
