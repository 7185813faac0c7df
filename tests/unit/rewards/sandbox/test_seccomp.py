"""The filter, run by a small interpreter of classic BPF."""

import re
import struct
from pathlib import Path

import pytest

from rayzero.rewards.sandbox import seccomp
from rayzero.rewards.sandbox.syscalls import ARCHITECTURES

ALLOW, KILL, EPERM, EACCES, ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x5000D, 0x50026
ENOTTY, EOPNOTSUPP = 0x50019, 0x5005F


def decide(program: bytes, number: int, audit: int, *args: int) -> int:
    """What the kernel would do with one system call."""
    padded = (*args, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<iIQ6Q", number, audit, 0, *padded)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at, value = 0, 0
    while True:
        operation, if_true, if_false, constant = code[at]
        if operation == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x06:
            return int(constant)
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[operation]
            at += if_true if holds else if_false
        at += 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
class TestFilter:
    def test_denied_and_allowed(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        program = seccomp.build(machine)
        for name in seccomp.DENIED:
            if name in arch.numbers:
                assert decide(program, arch.numbers[name], arch.audit) == EPERM, name
        for number in {"x86_64": (0, 1, 9, 59, 231, 90, 280), "aarch64": (63, 64, 222, 221, 94, 52, 88)}[machine]:
            assert decide(program, number, arch.audit) == ALLOW
        for name in ("io_setup", "timer_create", "clone3"):
            assert decide(program, arch.numbers[name], arch.audit) == ENOSYS

    def test_calls_of_newer_kernels_are_absent(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        assert decide(seccomp.build(machine), max(arch.numbers.values()), arch.audit) == ALLOW
        assert decide(seccomp.build(machine), max(arch.numbers.values()) + 1, arch.audit) == ENOSYS

    def test_arguments_count(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        program = seccomp.build(machine)
        clone, pair, ioctl = (arch.numbers[name] for name in ("clone", "socketpair", "ioctl"))
        assert decide(program, clone, arch.audit, 17) == ALLOW
        assert decide(program, clone, arch.audit, 0x003D0F00) == ALLOW  # a thread
        assert decide(program, clone, arch.audit, 0x10000000 | 17) == EPERM
        assert decide(program, clone, arch.audit, 0x00020000) == EPERM
        assert decide(program, arch.numbers["clone3"], arch.audit) == ENOSYS
        flags = 0o2004000  # SOCK_CLOEXEC | SOCK_NONBLOCK
        for kind, decision in (
            (1, ALLOW),
            (5, ALLOW),
            (2, EACCES),
            (3, EACCES),
            (2 | flags, EACCES),
            (1 | flags, ALLOW),
        ):
            assert decide(program, pair, arch.audit, 1, kind) == decision, kind
        assert decide(program, pair, arch.audit, 2, 1) == EACCES
        for command, decision in ((1, ALLOW), (1030, ALLOW), (8, EPERM), (1024, EPERM), (1026, EPERM)):
            assert decide(program, arch.numbers["fcntl"], arch.audit, 0, command) == decision, command
        assert decide(program, ioctl, arch.audit, 0, 0x5412) == EPERM
        assert decide(program, ioctl, arch.audit, 0, 0x5401) == ALLOW

    def test_foreign_calls_are_killed(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        assert decide(seccomp.build(machine), 1, 0x40000003) == KILL
        if arch.foreign_bit:
            assert decide(seccomp.build(machine), arch.foreign_bit + 39, arch.audit) == KILL

    def test_without_namespaces_nothing_reaches_the_users_other_files_and_processes(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        program = seccomp.build(machine, namespaces=False)
        for name in seccomp.DENIED_WITHOUT_NAMESPACES:
            if name in arch.numbers:
                assert decide(program, arch.numbers[name], arch.audit) == EPERM, name
        for name in seccomp.UNSUPPORTED_WITHOUT_NAMESPACES:
            assert decide(program, arch.numbers[name], arch.audit) == EOPNOTSUPP, name
        setsid = arch.numbers["setsid"]
        assert decide(seccomp.build(machine), setsid, arch.audit) == ALLOW

    def test_without_namespaces_arguments_count_as_well(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        program = seccomp.build(machine, namespaces=False)
        limit, ioctl, prctl = (arch.numbers[name] for name in ("prlimit64", "ioctl", "prctl"))
        assert decide(program, limit, arch.audit, 0, 7) == ALLOW
        assert decide(program, limit, arch.audit, 1, 7) == EPERM
        assert decide(program, limit, arch.audit, 2**32 - 1, 7) == EPERM
        assert decide(program, ioctl, arch.audit, 0, 0x541B) == ALLOW
        for request in (0x5412, 0x40086602, 0x401C5820, 0x40806685, 0x8901):
            assert decide(program, ioctl, arch.audit, 0, request) == ENOTTY, hex(request)
        assert decide(program, prctl, arch.audit, 15) == ALLOW
        assert decide(program, prctl, arch.audit, 4) == EPERM
        assert decide(program, prctl, arch.audit, 62) == EPERM


def test_the_numbers_are_the_kernels() -> None:
    """Against the headers of a compiler, where one is installed."""
    headers = {
        "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "aarch64": "/usr/include/asm-generic/unistd.h",
    }
    for machine, header in headers.items():
        if not Path(header).exists():
            continue
        found = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)\n", Path(header).read_text()))
        for name, number in ARCHITECTURES[machine].numbers.items():
            assert int(found.get(name, number)) == number, (machine, name)


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(KeyError):
        seccomp.build("pdp11")


def test_every_denied_call_has_a_number() -> None:
    for name in (*seccomp.refusals(namespaces=True), *seccomp.refusals(namespaces=False)):
        assert name in ARCHITECTURES["x86_64"].numbers, name
