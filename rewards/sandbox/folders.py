"""A box's private folder where no namespace gives it a /tmp of its own: made empty, bounded by the watch, gone with
the box."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from rayzero.rewards.sandbox.limits import MIB

MAX_FILES = 16384
RESERVE_BYTES = 64 * MIB
MAX_DEPTH = 64
"""Deeper, and paths grow too long to be looked at."""
MAX_REWRITES = 8
"""How often over a box may write what its folder holds: files that it deleted and keeps open are seen nowhere else."""


@dataclass(frozen=True)
class Folder:
    """One box's."""

    path: str
    max_bytes: int

    def is_full(self, written_bytes: int = 0) -> bool:
        """Whether there is more in it than allowed. `written_bytes`: what its box has written to disks so far."""
        if written_bytes > MAX_REWRITES * self.max_bytes:
            return True
        left_bytes, left_files = self.max_bytes, MAX_FILES
        folders = [(self.path, 0)]
        while folders:
            path, depth = folders.pop()
            try:
                for entry in _entries(path):
                    left_files -= 1
                    left_bytes -= entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, depth + 1))
                    if left_files < 0 or left_bytes < 0 or depth >= MAX_DEPTH:
                        return True
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted meanwhile
            except OSError:
                return True  # a folder that hides its content from the watch
        return False

    def has_room_left(self) -> bool:
        """Whether the disk has room for a large file more: below that no program can be blamed for failing to write."""
        with contextlib.suppress(OSError):
            found = os.statvfs(self.path)
            return found.f_bavail * found.f_frsize > min(self.max_bytes, RESERVE_BYTES)
        return False

    def remove(self) -> None:
        """Delete it with all that is in it. Its box must have ended."""
        remove(self.path)


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from entries


def make(path: str, max_bytes: int, user: int | None) -> Folder:
    """An empty folder of this user's alone. OSError where the disk has no room for it."""
    os.mkdir(path, 0o700)
    try:
        if user is not None:
            os.chown(path, user, user)
        folder = Folder(path, max_bytes)
        if not folder.has_room_left():
            raise OSError(f"no room left on the disk of {os.path.dirname(path)} for a program's files")
    except OSError:
        os.rmdir(path)
        raise
    return folder


def remove(path: str) -> None:
    """Delete a tree that a program may have made: deeper than Python recurses, with folders that cannot be entered."""
    with contextlib.suppress(OSError):
        os.rmdir(path)  # most are empty
        return
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(path)
        return
    for command in (["chmod", "-R", "u+rwX", path], ["rm", "-rf", path]):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(command, check=False, timeout=60, **quiet)  # type: ignore[call-overload]
