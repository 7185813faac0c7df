"""What a process does to itself before it may touch a stranger's program. Runs inside the box; stdlib only.

Order matters: descriptors, capabilities, no_new_privs, Landlock, seccomp last (it forbids what the earlier steps need).
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Any

CLONE_EVERYTHING = 0x10000000 | 0x00020000 | 0x20000000 | 0x08000000 | 0x40000000 | 0x04000000 | 0x02000000
"""NEWUSER | NEWNS | NEWPID | NEWIPC | NEWNET | NEWUTS | NEWCGROUP."""
MS_NOSUID_NODEV = 2 | 4
MS_RDONLY, MS_NOEXEC = 1, 8
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
SECCOMP_MODE_FILTER = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, what + ": " + os.strerror(number))


def new_namespaces(tmp_bytes: int) -> None:
    """Leave every namespace of the parent: own users, mounts, pids (from the next fork on), network, IPC, host name."""
    uid, gid = os.getuid(), os.getgid()
    _check(libc.unshare(CLONE_EVERYTHING), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open("/proc/self/" + name, os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)
    bounded = f"size={tmp_bytes},nr_inodes=16384".encode()
    _check(libc.mount(b"tmp", b"/tmp", b"tmpfs", MS_NOSUID_NODEV, bounded), "mount /tmp")
    _check(libc.mount(b"shm", b"/dev/shm", b"tmpfs", MS_NOSUID_NODEV, bounded), "mount /dev/shm")


def own_proc() -> None:
    """Cover the zygote's /proc, which would show the other boxes' processes, by one that shows our own; else by an
    empty one.

    To be called as pid 1 of the new namespaces.
    """
    if libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID_NODEV | MS_NOEXEC, None) != 0:
        flags = MS_NOSUID_NODEV | MS_NOEXEC | MS_RDONLY
        _check(libc.mount(b"none", b"/proc", b"tmpfs", flags, b"size=4k,nr_inodes=1"), "mount /proc")


def drop_capabilities() -> None:
    """No capability in any set, and none to be had by exec."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def no_new_privileges() -> None:
    """Set-uid files give nothing from here on; also what lets an unprivileged process install filters."""
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def install_filter(program: bytes) -> None:
    """Install a seccomp BPF program (8 bytes an instruction)."""
    filter_ = _Filter(len(program) // 8, program)
    _check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0), "seccomp")


def limit(limits: dict[str, Any]) -> None:
    """Set the process's rlimits, soft = hard, from `{"AS": bytes, "CPU": seconds, ...}`."""
    for name, value in limits.items():
        number = getattr(resource, "RLIMIT_" + name)
        _, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(number, (value, value))


class _RulesetAttribute(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 444, 445, 446
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1, 2, 4, 8, 1 << 15
_FILE_BITS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | _IOCTL_DEV


def landlock_abi() -> int:
    """The kernel's Landlock ABI version, 0 where it has none."""
    return max(0, int(libc.syscall(SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def landlock(readable: list[str], writable: list[str]) -> None:
    """From here on only `readable` trees can be read and executed, only `writable` ones changed; no TCP; no signals
    out."""
    abi = landlock_abi()
    everything = (1 << _FS_BITS.get(abi, 16)) - 1
    attribute = _RulesetAttribute(everything, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = libc.syscall(SYS_LANDLOCK_CREATE, ctypes.byref(attribute), ctypes.c_size_t(size), ctypes.c_uint32(0))
    _check(ruleset, "landlock")
    rules = [(path, _EXECUTE | _READ_FILE | _READ_DIR) for path in readable]
    rules += [("/dev/null", _READ_FILE | _WRITE_FILE)]
    rules += [(path, _READ_FILE) for path in ("/dev/zero", "/dev/urandom", "/dev/random")]
    rules += [(path, everything & ~_IOCTL_DEV) for path in writable]
    for path, access in rules:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            access &= _FILE_BITS
        rule = _PathBeneath(access & everything, parent)
        _check(libc.syscall(SYS_LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), ctypes.c_uint32(0)), "landlock " + path)
        os.close(parent)
    _check(libc.syscall(SYS_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint32(0)), "landlock")
    os.close(ruleset)
