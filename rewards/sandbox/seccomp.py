"""The system calls that no program under judgement needs, refused by a hand-assembled BPF filter.

A deny list: namespaces and capabilities are the first wall, and interpreters of five languages must run. It closes
what namespaces leave open (io_uring, keys, user namespaces within, BPF, userfaultfd, AF_ALG and AF_VSOCK sockets),
what holds memory that no process is seen to own (memfd, System V shared memory, message queues), and what the kernel
counts for the whole machine or user (aio contexts, timers). Without namespaces it is the only wall around what Landlock
does not govern: modes, owners and times of files, priorities and limits of the user's other processes, System V
objects, sockets with a path. Needs no libseccomp.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable, Mapping

from rayzero.rewards.sandbox.syscalls import ARCHITECTURES, FIRST_UNKNOWN, Architecture

_DENIED = """
    acct add_key adjtimex bind bpf chroot clock_adjtime clock_settime connect create_module delete_module
    fanotify_init finit_module fsconfig fsmount fsopen fspick init_module inotify_init inotify_init1
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl
    listmount lookup_dcookie mbind memfd_create memfd_secret migrate_pages modify_ldt mount mount_setattr
    move_mount move_pages mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget
    msgrcv msgsnd name_to_handle_at nfsservctl open_by_handle_at open_tree open_tree_attr
    perf_event_open personality pidfd_getfd pivot_root process_madvise process_mrelease process_vm_readv
    process_vm_writev ptrace quotactl quotactl_fd reboot request_key semctl semget semop semtimedop
    set_mempolicy setdomainname sethostname setns settimeofday shmat shmctl shmget socket statmount swapoff
    swapon sync syncfs syslog sysfs umount2 unshare uselib userfaultfd ustat vhangup vmsplice _sysctl
"""
DENIED = tuple(_DENIED.split())
ABSENT = ("io_setup", "timer_create")
"""Counted for the whole machine and the whole user; who finds them absent (`timeout`) has another way."""
_WITHOUT_NAMESPACES = """
    chmod chown fchmod fchmodat fchmodat2 fchown fchownat file_getattr file_setattr futimesat
    get_robust_list ioprio_set lchown sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sendmmsg sendmsg setpgid setpriority setsid utime utimensat utimes
"""
DENIED_WITHOUT_NAMESPACES = tuple(_WITHOUT_NAMESPACES.split())
"""What reaches other files and processes of the user; setsid and setpgid, because the process group is what gets
killed; sendmsg, because a descriptor in flight hides a file from the watch."""
_WITHOUT_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
    llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""
UNSUPPORTED_WITHOUT_NAMESPACES = tuple(_WITHOUT_ATTRIBUTES.split())
"""As on a file system without extended attributes, which those who copy files expect."""

_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NEW_NAMESPACES = 0x7E020000
_TIOCSTI, _TIOCLINUX, _AF_UNIX = 0x5412, 0x541C, 1
_DATAGRAM_BIT = 2
"""Set in SOCK_DGRAM and SOCK_RAW, not in SOCK_STREAM and SOCK_SEQPACKET."""
_SIGNALS_OF_FILES = (8, 10, 15, 1024, 1026, 1036, 1038)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, F_SET_RW_HINT, F_SET_FILE_RW_HINT: signals to others, and what
holds up or marks files that others use."""
_HARMLESS_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451)
"""FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others set flags of files that are open for reading only."""
_OF_OTHERS = (4, 62)
"""PR_SET_DUMPABLE, which would close /proc/<pid> to the watch; PR_SCHED_CORE, which takes a pid."""


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


_ALLOWED = _instruction(_RETURN, _ALLOW)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, 16 + 8 * index)


def _on(number: int, body: bytes) -> bytes:
    """Run `body` (which returns on every path) for one system call."""
    return _instruction(_EQUAL, number, 0, len(body) // 8) + body


def _one_of(argument: int, values: Iterable[int], then: bytes, otherwise: bytes) -> bytes:
    """`then` (one instruction) where the argument is one of `values`."""
    return _argument(argument) + b"".join(_on(value, then) for value in values) + otherwise


def _by_arguments(namespaces: bool) -> Mapping[str, bytes]:
    """What depends on the arguments of a call."""
    denied = _refuse(errno.EPERM)
    pair = _argument(0) + _instruction(_EQUAL, _AF_UNIX, 1, 0) + _refuse(errno.EACCES)
    # A pair of datagram sockets can be sent to any other such socket of the machine, by its path.
    pair += _argument(1) + _instruction(_BITS, _DATAGRAM_BIT, 0, 1) + _refuse(errno.EACCES) + _ALLOWED
    rules = {
        "clone": _argument(0) + _instruction(_BITS, _NEW_NAMESPACES, 0, 1) + denied + _ALLOWED,
        "socketpair": pair,
        "fcntl": _one_of(1, _SIGNALS_OF_FILES, denied, _ALLOWED),
        # glibc falls back to clone, whose flags a filter can read; clone3 keeps them behind a pointer.
        "clone3": _refuse(errno.ENOSYS),
    }
    if namespaces:
        return {**rules, "ioctl": _one_of(1, (_TIOCSTI, _TIOCLINUX), denied, _ALLOWED)}
    return {
        **rules,
        "ioctl": _one_of(1, _HARMLESS_IOCTLS, _ALLOWED, _refuse(errno.ENOTTY)),
        "prctl": _one_of(0, _OF_OTHERS, denied, _ALLOWED),
        "prlimit64": _one_of(0, (0,), _ALLOWED, denied),
    }


def refusals(*, namespaces: bool) -> Mapping[str, int]:
    """The calls that are refused whatever their arguments, and with which error."""
    refused = dict.fromkeys(DENIED, errno.EPERM) | dict.fromkeys(ABSENT, errno.ENOSYS)
    if not namespaces:
        refused |= dict.fromkeys(DENIED_WITHOUT_NAMESPACES, errno.EPERM)
        refused |= dict.fromkeys(UNSUPPORTED_WITHOUT_NAMESPACES, errno.EOPNOTSUPP)
    return refused


def numbered_refusals(*, namespaces: bool) -> list[tuple[int, int]]:
    """The same by number on this machine, for a box that tries each."""
    numbers = ARCHITECTURES[platform.machine()].numbers
    return [(numbers[name], error) for name, error in refusals(namespaces=namespaces).items() if name in numbers]


def _rules(arch: Architecture, namespaces: bool) -> bytes:
    rules = b"".join(_on(arch.numbers[name], body) for name, body in _by_arguments(namespaces).items())
    for name, error in refusals(namespaces=namespaces).items():
        if name in arch.numbers:
            rules += _on(arch.numbers[name], _refuse(error))
    return rules


def build(machine: str | None = None, *, namespaces: bool = True) -> bytes:
    """The BPF program for `machine` (this one by default), 8 bytes an instruction. KeyError for an unknown machine."""
    arch = ARCHITECTURES[machine or platform.machine()]
    program = _instruction(_LOAD, 4) + _instruction(_EQUAL, arch.audit, 1, 0) + _instruction(_RETURN, _KILL)
    program += _instruction(_LOAD, 0)
    if arch.foreign_bit:
        program += _instruction(_AT_LEAST, arch.foreign_bit, 0, 1) + _instruction(_RETURN, _KILL)
    program += _instruction(_AT_LEAST, FIRST_UNKNOWN, 0, 1) + _refuse(errno.ENOSYS)
    return program + _rules(arch, namespaces) + _ALLOWED
