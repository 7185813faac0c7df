"""The system calls that no program under judgement needs, refused by a hand-assembled BPF filter.

A deny list: namespaces and capabilities are the first wall, and interpreters of five languages must run. It closes
what namespaces leave open (io_uring, keys, user namespaces within, BPF, userfaultfd, AF_ALG and AF_VSOCK sockets) and
what holds memory that no process is seen to own (memfd, System V shared memory, message queues). Needs no libseccomp.
"""

from __future__ import annotations

import errno
import platform
import struct

from rayzero.rewards.sandbox.syscalls import ARCHITECTURES, Architecture

_DENIED = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime create_module delete_module
    fanotify_init finit_module fsconfig fsmount fsopen fspick init_module inotify_init inotify_init1
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl
    lookup_dcookie mbind memfd_create memfd_secret migrate_pages modify_ldt mount mount_setattr
    move_mount move_pages mq_open msgget name_to_handle_at nfsservctl open_by_handle_at open_tree
    perf_event_open personality pidfd_getfd pivot_root process_madvise process_vm_readv
    process_vm_writev ptrace quotactl quotactl_fd reboot request_key semget set_mempolicy setdomainname
    sethostname setns settimeofday shmget socket swapoff swapon syslog sysfs umount2 unshare uselib
    userfaultfd ustat vhangup vmsplice _sysctl
"""
DENIED = tuple(_DENIED.split())
DENIED_WITHOUT_NAMESPACES = ("setsid", "setpgid")
"""Without a pid namespace the process group is what gets killed, so nothing may leave it."""

_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NEW_NAMESPACES = 0x7E020000
_TIOCSTI, _TIOCLINUX, _AF_UNIX = 0x5412, 0x541C, 1


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, 16 + 8 * index)


def _on(number: int, body: bytes) -> bytes:
    """Run `body` (which returns on every path) for one system call."""
    return _instruction(_EQUAL, number, 0, len(body) // 8) + body


def _rules(arch: Architecture, denied: tuple[str, ...]) -> bytes:
    allow = _instruction(_RETURN, _ALLOW)
    clone = _argument(0) + _instruction(_BITS, _NEW_NAMESPACES, 0, 1) + _refuse(errno.EPERM) + allow
    ioctl = _argument(1) + _instruction(_EQUAL, _TIOCSTI, 1, 0) + _instruction(_EQUAL, _TIOCLINUX, 0, 1)
    ioctl += _refuse(errno.EPERM) + allow
    pair = _argument(0) + _instruction(_EQUAL, _AF_UNIX, 0, 1) + allow + _refuse(errno.EACCES)
    rules = (
        _on(arch.numbers["clone"], clone) + _on(arch.numbers["ioctl"], ioctl) + _on(arch.numbers["socketpair"], pair)
    )
    # glibc falls back to clone, whose flags a filter can read; clone3 keeps them behind a pointer.
    rules += _on(arch.numbers["clone3"], _refuse(errno.ENOSYS))
    for name in denied:
        if name in arch.numbers:
            rules += _on(arch.numbers[name], _refuse(errno.EPERM))
    return rules


def build(machine: str | None = None, *, namespaces: bool = True) -> bytes:
    """The BPF program for `machine` (this one by default), 8 bytes an instruction. KeyError for an unknown machine."""
    arch = ARCHITECTURES[machine or platform.machine()]
    program = _instruction(_LOAD, 4) + _instruction(_EQUAL, arch.audit, 1, 0) + _instruction(_RETURN, _KILL)
    program += _instruction(_LOAD, 0)
    if arch.foreign_bit:
        program += _instruction(_AT_LEAST, arch.foreign_bit, 0, 1) + _instruction(_RETURN, _KILL)
    program += _rules(arch, DENIED if namespaces else DENIED + DENIED_WITHOUT_NAMESPACES)
    return program + _instruction(_RETURN, _ALLOW)
