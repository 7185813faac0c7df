"""The command lines given to bubblewrap. Each option here is one that a probe of doctor.py fails without."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "TMPDIR": "/tmp"}
"""All that a box's environment holds. The whole chain starts with it: /proc/1/environ would show what --clearenv only
unsets."""


def system_mounts() -> list[str]:
    """/usr read-only, and the top-level names that point into it."""
    args = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = "/" + name
        if os.path.islink(path):
            args += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            args += ["--ro-bind", path, path]
    # A JVM's own configuration is a set of links into /etc; nothing else of /etc is shown.
    for folder in sorted(Path("/etc").glob("java-*")):
        args += ["--ro-bind", str(folder), str(folder)]
    return args


def command(
    bwrap: str, *, mounts: Mapping[str, str], tmp_bytes: int, seccomp_fd: int | None, nested: bool = False,
    status_fd: int | None = None,
) -> list[str]:  # fmt: skip
    """The isolator's arguments, to be followed by the program's.

    `mounts`: host path by path in the box, all read-only. `nested`: the zygote may make namespaces of its own; nothing
    else.
    """
    args = [bwrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if not nested:
        args += ["--disable-userns"]
    args += [*system_mounts(), "--proc", "/proc", "--dev", "/dev"]
    args += ["--size", "4096", "--tmpfs", "/dev/pts", "--remount-ro", "/dev/pts"]  # ptys are counted for the machine
    args += ["--size", str(tmp_bytes), "--tmpfs", "/dev/shm", "--size", str(tmp_bytes), "--tmpfs", "/tmp"]
    for inside, outside in mounts.items():
        args += ["--ro-bind", outside, inside]
    args += ["--remount-ro", "/", "--remount-ro", "/dev", "--chdir", "/tmp"]
    if seccomp_fd is not None:
        args += ["--seccomp", str(seccomp_fd)]
    if status_fd is not None:
        args += ["--json-status-fd", str(status_fd)]
    return [*args, "--"]


def limited(rlimits: Mapping[str, int], argv: Sequence[str]) -> list[str]:
    """`argv` under rlimits, set inside the namespaces: outside, NPROC would count all of the user's processes."""
    return ["/usr/bin/prlimit", *(f"--{name.lower()}={value}:{value}" for name, value in rlimits.items()), "--", *argv]
