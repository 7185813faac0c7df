"""The filter, run by a small interpreter of classic BPF."""

import struct

import pytest

from rayzero.rewards.sandbox import seccomp
from rayzero.rewards.sandbox.syscalls import ARCHITECTURES

ALLOW, KILL, EPERM, EACCES, ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x5000D, 0x50026


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
        for number in {"x86_64": (0, 1, 9, 59, 231), "aarch64": (63, 64, 222, 221, 94)}[machine]:
            assert decide(program, number, arch.audit) == ALLOW

    def test_arguments_count(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        program = seccomp.build(machine)
        clone, pair, ioctl = (arch.numbers[name] for name in ("clone", "socketpair", "ioctl"))
        assert decide(program, clone, arch.audit, 17) == ALLOW
        assert decide(program, clone, arch.audit, 0x003D0F00) == ALLOW  # a thread
        assert decide(program, clone, arch.audit, 0x10000000 | 17) == EPERM
        assert decide(program, clone, arch.audit, 0x00020000) == EPERM
        assert decide(program, arch.numbers["clone3"], arch.audit) == ENOSYS
        assert decide(program, pair, arch.audit, 1) == ALLOW
        assert decide(program, pair, arch.audit, 2) == EACCES
        assert decide(program, ioctl, arch.audit, 0, 0x5412) == EPERM
        assert decide(program, ioctl, arch.audit, 0, 0x5401) == ALLOW

    def test_foreign_calls_are_killed(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        assert decide(seccomp.build(machine), 1, 0x40000003) == KILL
        if arch.foreign_bit:
            assert decide(seccomp.build(machine), arch.foreign_bit + 39, arch.audit) == KILL

    def test_without_namespaces_nothing_leaves_its_group(self, machine: str) -> None:
        arch = ARCHITECTURES[machine]
        number = arch.numbers["setsid"]
        assert decide(seccomp.build(machine), number, arch.audit) == ALLOW
        assert decide(seccomp.build(machine, namespaces=False), number, arch.audit) == EPERM


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(KeyError):
        seccomp.build("pdp11")


def test_every_denied_call_has_a_number() -> None:
    for name in (*seccomp.DENIED, *seccomp.DENIED_WITHOUT_NAMESPACES):
        assert name in ARCHITECTURES["x86_64"].numbers, name
