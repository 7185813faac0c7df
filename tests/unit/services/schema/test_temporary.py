"""Folders that end with their process, and with no other's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rayzero.services.schema import temporary
from rayzero.services.schema.processes import boot_id
from rayzero.services.schema.temporary import own_folder, remove_dead_folders
from tests.system import AS_ROOT, needs

OWN = "from rayzero.services.schema.temporary import own_folder; print(own_folder(), flush=True); input()"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are, here and in other processes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@contextmanager
def another(*prefix: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a folder of its own; ended in the end."""
    command = [*prefix, sys.executable, "-c", OWN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_folders_of_the_dead_are_removed_and_no_others(folder: Path) -> None:
    kept = [folder / f"rayzero-{os.getppid()}-abc", folder / "rayzero-storm-abc", folder / "another"]
    for each in kept:
        each.mkdir()
    with another() as (process, theirs):
        (theirs / "socket").mkdir()
        own = own_folder()
        assert own.name.startswith(f"rayzero-{os.getpid()}-")
        assert sorted(folder.iterdir()) == sorted([own, theirs, *kept])
        process.kill()
        process.wait()
        remove_dead_folders()
        assert sorted(folder.iterdir()) == sorted([own, *kept])


@needs("unshare")
@AS_ROOT
def test_another_container_that_shares_the_folder_leaves_it_alone(folder: Path) -> None:
    """It has other process ids, and sees none of ours."""
    own = own_folder()
    (own / "session").mkdir()
    with another("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") as (_, theirs):
        assert theirs.is_dir() and own.is_dir()
        remove_dead_folders()
        assert theirs.is_dir() and (own / "session").is_dir()


def test_another_machine_that_shares_the_folder_leaves_it_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not locks reach it."""
    with another() as (process, theirs):
        process.kill()
        process.wait()
        with monkeypatch.context() as patch:
            patch.setattr(temporary, "boot_id", lambda: "another machine's")
            remove_dead_folders()
            assert theirs.is_dir()
        remove_dead_folders()
        assert not theirs.is_dir()


def test_a_link_in_a_shared_folder_leads_nowhere(folder: Path) -> None:
    """Others may write there, too."""
    precious, fake = folder / "precious", folder / "rayzero-1-fake"
    precious.mkdir()
    (precious / "owner").write_text(boot_id())
    fake.symlink_to(precious)
    (folder / "rayzero-2-fake").mkdir()
    (folder / "rayzero-2-fake" / "owner").symlink_to(precious / "owner")
    remove_dead_folders()
    assert (precious / "owner").is_file() and (folder / "rayzero-2-fake").is_dir()
