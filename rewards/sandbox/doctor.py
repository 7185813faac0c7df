"""What this machine can isolate: each promise of each backend, attacked by a live probe."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rayzero.rewards.sandbox import host, selftest
from rayzero.rewards.sandbox.client import Sandbox, SandboxConfig, SandboxRefusedError
from rayzero.rewards.sandbox.inside.confine import landlock_abi
from rayzero.rewards.sandbox.limits import MIB, Limits
from rayzero.rewards.sandbox.processes import scan
from rayzero.rewards.sandbox.refusal import explain, fixes

PROMISES: Mapping[str, str] = {
    "calls": "every system call that no program needs is refused",
    "read": "no file of the machine can be read, the interpreter and /usr excepted",
    "list": "no folder of the machine can be listed",
    "home": "nothing of the user's home is seen",
    "write": "nothing outside a private folder can be written",
    "modes": "no mode, owner, time or attribute of a file outside can be changed",
    "environment": "no environment variable of this process is seen",
    "network": "no network, not even loopback",
    "sockets": "no socket that could be sent to another program's",
    "signal": "no other process can be signalled",
    "priorities": "no priority, core or limit of another process can be changed",
    "trace": "no other process can be traced",
    "shared": "no shared memory, semaphore or queue of another process can be used",
    "counted": "nothing is taken that the kernel counts for the whole machine or user",
    "descriptors": "no descriptor is inherited",
    "namespaces": "no new namespace can be made",
    "processes": "the number of processes is bounded",
    "sleep": "a program that sleeps ends at the wall limit",
    "spin": "a program that spins in C code ends at its CPU limit",
    "memory": "memory is bounded, also over many processes",
    "output": "a flood of output ends the run",
    "survivors": "nothing that a program starts outlives its verdict",
    "threads": "a program's own threads and processes start",
    "tempfile": "a program has a temporary folder of its own",
    "neighbours": "a run next to all this is not disturbed",
}


@dataclass(frozen=True)
class ProbeResult:
    """One promise, tried."""

    promise: str
    meaning: str
    holds: bool
    detail: str
    seconds: float


@dataclass(frozen=True)
class BackendReport:
    """What one backend keeps."""

    backend: str
    works: bool
    """It starts and its own self-test passes."""
    reason: str
    """Why it does not."""
    findings: tuple[ProbeResult, ...] = ()


@dataclass(frozen=True)
class DoctorReport:
    """The whole examination."""

    machine: Mapping[str, Any]
    chosen: str
    """What `backend: auto` takes; empty where it refuses."""
    refusal: str
    backends: tuple[BackendReport, ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        """Whether `auto` finds a backend, and every promise of that backend holds."""
        return any(
            report.backend == self.chosen and all(finding.holds for finding in report.findings)
            for report in self.backends
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "is_sound": self.is_sound}

    def format(self) -> str:
        """For a terminal."""
        lines = [f"{name}: {value}" for name, value in self.machine.items()]
        for report in self.backends:
            lines += ["", f"{report.backend}: {'works' if report.works else 'does not work'}"]
            lines += [f"  {line}" for line in report.reason.splitlines()]
            lines += [
                f"  {'holds ' if finding.holds else 'BROKEN'} {finding.promise:<12} {finding.meaning}"
                + (f" ({finding.detail})" if finding.detail else "")
                for finding in report.findings
            ]
        lines += ["", f"sandbox: auto takes {self.chosen}" if self.chosen else self.refusal]
        if self.chosen and self.chosen != self.backends[0].backend:
            lines += ["for bubblewrap, which keeps more apart (rewards/THREATS.md):"]
            lines += [f"  {fix}" for fix in fixes({"bwrap": self.backends[0].reason})]
        return "\n".join(lines)


def examine(python: str | None = None) -> DoctorReport:
    """Probe both backends. Takes some seconds; starts no Ray."""
    return asyncio.run(_examine(python))


async def chosen_backend(python: str | None = None) -> tuple[str, Mapping[str, str]]:
    """What `auto` takes here ("" where it refuses), and why not the others. As fast as a worker's own start."""
    sandbox = Sandbox(SandboxConfig(python=python))
    try:
        return await sandbox.start(), sandbox.passed_over
    except SandboxRefusedError as error:
        return "", error.reasons
    finally:
        await sandbox.close()


async def _examine(python: str | None) -> DoctorReport:
    reports = [await _examine_backend(name, python) for name in ("bwrap", "landlock")]
    working = [report.backend for report in reports if report.works]
    refusal = ""
    if not working:
        refusal = explain({report.backend: report.reason for report in reports})
    return DoctorReport(_machine(python), working[0] if working else "", refusal, tuple(reports))


def _machine(python: str | None) -> dict[str, Any]:
    interpreter = host.find_interpreter(python)
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "user": "root (boxes run as another)" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "bubblewrap": host.find_bwrap() or "not found",
        "landlock_abi": landlock_abi(),
        "python in boxes": interpreter.path if interpreter else "not found",
    }


async def _examine_backend(name: str, python: str | None) -> BackendReport:
    secret = secrets.token_hex(12)
    os.environ["RAYZERO_DOCTOR_SECRET"] = secret
    sandbox = Sandbox(SandboxConfig(backend=name, python=python))
    try:
        await sandbox.start()
    except SandboxRefusedError as error:
        await sandbox.close()
        return BackendReport(name, False, error.reasons[name])
    finally:
        del os.environ["RAYZERO_DOCTOR_SECRET"]
    try:
        findings = await _attacks(sandbox, secret)
        findings += await asyncio.gather(*(_timed(promise, probe(sandbox)) for promise, probe in _CALM.items()))
        for promise, probe in _VIOLENT.items():
            findings.append(await _timed(promise, probe(sandbox)))
    finally:
        await sandbox.close()
    return BackendReport(name, True, "", tuple(findings))


async def _timed(promise: str, probe: Awaitable[str]) -> ProbeResult:
    started = time.monotonic()
    detail = await probe
    return ProbeResult(promise, PROMISES[promise], not detail, detail, round(time.monotonic() - started, 3))


async def _attacks(sandbox: Sandbox, secret: str) -> list[ProbeResult]:
    """The self-test's attacks, each in a box of its own, with a fresh canary, listener and secret."""
    findings = []
    decoy = await asyncio.create_subprocess_exec("sleep", "600", env={"SECRET": secret, "PATH": os.environ["PATH"]})
    try:
        with selftest.bait([os.getpid(), decoy.pid, *sandbox.pids], secret, host.home(), sandbox.backend) as facts:
            for name in selftest.PROBES:
                findings.append(await _timed(name, _attack(sandbox, selftest.program(facts, [name]))))
    finally:
        decoy.kill()
        await decoy.wait()
    return findings


async def _attack(sandbox: Sandbox, source: str) -> str:
    limits = _limits(cpu_s=5, wall_s=15, memory_bytes=1 << 30)
    return selftest.verdict(await sandbox.python({"mode": "stdio", "source": source}, limits))


def _honest(name: str) -> Callable[[Sandbox], Awaitable[str]]:
    async def probe(sandbox: Sandbox) -> str:
        job = {"mode": "stdio", "source": selftest.HONEST[name]}
        return selftest.shortfall(await sandbox.python(job, _limits(wall_s=10)))

    return probe


def _limits(**changes: Any) -> Limits:
    return replace(Limits(cpu_s=1, wall_s=2, memory_bytes=128 * MIB), **changes)


async def _ends(sandbox: Sandbox, source: str, wanted: str, **changes: Any) -> str:
    outcome = await sandbox.python({"mode": "stdio", "source": source}, _limits(**changes))
    return "" if outcome.ended in wanted.split() else f"ended as {outcome.ended} after {outcome.wall_s:.2f} s"


async def _sleep(sandbox: Sandbox) -> str:
    job = {"mode": "stdio", "source": "import time; time.sleep(60)"}
    for _ in range(3):  # a loaded machine may wake the supervisor late once
        outcome = await sandbox.python(job, _limits())
        if outcome.ended == "wall" and abs(outcome.wall_s - 2) < 0.2:
            return ""
    return f"ended as {outcome.ended} after {outcome.wall_s:.2f} s of 2"


async def _spin(sandbox: Sandbox) -> str:
    return await _ends(sandbox, "9 ** 9 ** 9", "cpu starved", wall_s=5)


async def _memory(sandbox: Sandbox) -> str:
    many = (
        "import os, time\n"
        "for _ in range(12):\n"
        "    if os.fork() == 0: x = bytearray(b'x') * (48 << 20); time.sleep(20)\n"
        "time.sleep(20)"
    )
    return await _ends(sandbox, many, "memory", wall_s=6, cpu_s=10)


async def _output(sandbox: Sandbox) -> str:
    return await _ends(sandbox, "while True: print('x' * 1000)", "output", wall_s=10, cpu_s=10)


async def _survivors(sandbox: Sandbox) -> str:
    """A daemon that would touch nothing but be seen: its name is looked for among this machine's processes."""
    mark = secrets.randbelow(10**6) + 10**6
    before = {process.pid for process in scan()}
    source = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    try: os.setsid()\n"
        "    except OSError: pass\n"
        f"    if os.fork() == 0: os.execv('/usr/bin/sleep', ['sleep', '{mark}'])\n"
        "    os._exit(0)\n"
        "time.sleep(0.3)"
    )
    await sandbox.python({"mode": "stdio", "source": source}, _limits(wall_s=5))
    await asyncio.sleep(0.2)
    left = [process.pid for process in scan() if process.pid not in before and str(mark) in _command_line(process.pid)]
    return f"{len(left)} processes left" if left else ""


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


async def _neighbours(sandbox: Sandbox) -> str:
    """Healthy runs beside a fork bomb, a spinner, a sleeper and a hoarder."""
    bad = [
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "while True: pass",
        "import time; time.sleep(60)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
    ]
    jobs = [sandbox.python({"mode": "stdio", "source": source}, _limits()) for source in bad]
    healthy = [
        sandbox.python({"mode": "stdio", "source": "print(sum(map(int, input().split())))"}, _limits(wall_s=20), b"1 2")
        for _ in range(8)
    ]
    outcomes = await asyncio.gather(*jobs, *healthy)
    wrong = [outcome for outcome in outcomes[len(bad) :] if outcome.stdout != b"3\n"]
    return f"{len(wrong)} of {len(healthy)} healthy runs failed: {wrong[0].ended} {wrong[0].detail}" if wrong else ""


_CALM: Mapping[str, Callable[[Sandbox], Awaitable[str]]] = {
    "sleep": _sleep,
    "spin": _spin,
    "survivors": _survivors,
    **{name: _honest(name) for name in selftest.HONEST},
}
"""They disturb one another as little as programs in one worker do."""
_VIOLENT: Mapping[str, Callable[[Sandbox], Awaitable[str]]] = {
    "memory": _memory,
    "output": _output,
    "neighbours": _neighbours,
}
