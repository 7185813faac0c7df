from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rayzero.rewards.sandbox import folders
from rayzero.rewards.sandbox.folders import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folders.make(str(tmp_path / "private"), 1 << 20, None)


def test_an_empty_one_is_not_full_and_goes_at_once(folder: Folder) -> None:
    assert os.stat(folder.path).st_mode & 0o777 == 0o700
    assert not folder.is_full()
    folder.remove()
    assert not os.path.exists(folder.path)


def test_bytes_files_depth_and_what_was_written_are_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Path(folder.path, "a", "large")
    large.parent.mkdir()
    large.write_bytes(bytes(2 << 20))
    assert folder.is_full()
    large.write_bytes(b"small")
    assert not folder.is_full()
    assert folder.is_full(written_bytes=9 << 20)
    monkeypatch.setattr(folders, "MAX_FILES", 1)
    assert folder.is_full()
    monkeypatch.undo()
    Path(folder.path, *"d" * (folders.MAX_DEPTH + 1), "x").mkdir(parents=True)
    assert folder.is_full()


def test_a_link_out_counts_nothing_and_its_target_stays(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(bytes(4 << 20))
    os.symlink(outside, os.path.join(folder.path, "link"))
    assert not folder.is_full()
    folder.remove()
    assert (outside / "large").exists() and not os.path.exists(folder.path)


def test_what_a_program_makes_hard_to_delete_is_deleted(folder: Folder) -> None:
    here = os.getcwd()
    os.chdir(folder.path)
    try:
        for _ in range(1500):  # deeper than Python recurses
            os.mkdir("d")
            os.chdir("d")
        os.mkdir("closed", mode=0o300)
    finally:
        os.chdir(here)
    folder.remove()
    assert not os.path.exists(folder.path)


def test_without_room_on_the_disk_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(OSError, match="no room left"):
        folders.make(str(tmp_path / "private"), 1 << 20, None)
    assert not (tmp_path / "private").exists()
