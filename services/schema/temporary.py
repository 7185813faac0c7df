"""Folders for what one process leaves in the file system, found and removed once that process is dead.

A process id does not tell: containers and nodes that share the temporary directory count their own. The owner holds a
lock on a file in its folder as long as it lives, wherever on this machine it is seen from; what was made on another
machine is left alone, for locks need not reach across a network's file system.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from rayzero.services.schema.processes import boot_id

PREFIX = "rayzero-"
OWNER = "owner"
"""The file that is locked. It names the machine, since its last start."""

_HELD: list[int] = []
"""Descriptors that stay open, and with them the locks, until this process ends."""


def own_folder() -> Path:
    """A new folder of this process. Its path is short: a socket's may have 107 bytes."""
    remove_dead_folders()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    # Locked before it has its name: by that name others find it, and take it for a dead one's.
    unnamed = folder / f".{OWNER}"
    descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, boot_id().encode())
    unnamed.rename(folder / OWNER)
    _HELD.append(descriptor)
    return folder


def remove_dead_folders() -> None:
    """Folders of processes of this machine that were killed before they could remove them."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*/{OWNER}"):
        with contextlib.suppress(OSError):
            _remove_if_dead(owner)


def _remove_if_dead(owner: Path) -> None:
    if owner.stat().st_uid != os.getuid():
        return
    descriptor = os.open(owner, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if os.read(descriptor, 64).decode(errors="replace") != boot_id():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the owner lives
        shutil.rmtree(owner.parent, ignore_errors=True)
    finally:
        os.close(descriptor)
