"""Folders for what one process leaves in the file system, found and removed once that process is dead."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "rayzero-"


def own_folder() -> Path:
    """A new folder of this process. Its path is short: a socket's may have 107 bytes."""
    remove_dead_folders()
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def remove_dead_folders() -> None:
    """Folders of processes that were killed before they could remove them."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = path.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)
