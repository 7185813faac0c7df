"""What the sandbox costs, and what is left of it when programs hang.

- CPU-ms of a sandboxed Python test over `python -I -S`, all processes counted: the client, the supervisor, the
  zygote, the box.
- Verdicts a second of a stream of healthy programs, and their latencies.
- How much of that is left to the healthy when 1 % of all programs hang, asleep or spinning, and whether a healthy
  verdict changes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from rayzero.rewards.code.judge import CodeJudge
from rayzero.rewards.sandbox import host
from rayzero.rewards.sandbox.client import Sandbox, SandboxConfig
from rayzero.rewards.sandbox.limits import Limits
from rayzero.rewards.sandbox.processes import scan, tree
from rayzero.services.schema.config.sandbox import SandboxSettings
from rayzero.services.schema.messages import VerdictStatus

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
HANGS = {"asleep": "import time\ntime.sleep(600)\n", "spinning": "9 ** 9 ** 9\n"}
NUM_RUNS = 200
NUM_HEALTHY = 1000
NUM_IN_FLIGHT = 32
HANG_SHARE = 0.01


@dataclass(frozen=True)
class Stream:
    """A batch of programs judged: what became of the healthy ones."""

    healthy_per_s: float
    cpu_s: float
    """CPU seconds of everything, while the healthy were judged."""
    latencies_s: list[float]
    num_changed: int
    """Healthy programs not judged correct."""


def run() -> dict[str, Any]:
    """Every figure, in about a minute on an idle machine."""
    return asyncio.run(_run())


async def _run() -> dict[str, Any]:
    figures: dict[str, Any] = await cost()
    quiet = await stream(None)
    figures |= {
        "verdicts_per_s": quiet.healthy_per_s,
        "latency_p50_ms": 1e3 * statistics.median(quiet.latencies_s),
        "latency_p99_ms": 1e3 * statistics.quantiles(quiet.latencies_s, n=100)[98],
        "num_changed": quiet.num_changed,
    }
    for kind in HANGS:
        loud = await stream(kind)
        again = await stream(None)  # before and after: the machine may have changed its pace meanwhile
        reference = (quiet.healthy_per_s + again.healthy_per_s) / 2
        figures |= {
            f"drop_{kind}_percent": 100 * (1 - loud.healthy_per_s / reference),
            f"hang_cpu_share_{kind}_percent": 100 * max(0.0, 1 - quiet.cpu_s / loud.cpu_s) if loud.cpu_s else 0.0,
            f"num_changed_{kind}": loud.num_changed,
        }
        quiet = again
    return figures


async def cost() -> dict[str, Any]:
    """CPU-ms a test: bare interpreter, sandboxed, and the difference."""
    bare = _bare_ms()
    sandbox = Sandbox(SandboxConfig())
    try:
        backend = await sandbox.start()
        await _runs(sandbox, 20)
        before = _cpu_s(sandbox)
        await _runs(sandbox, NUM_RUNS)
        sandboxed = 1e3 * (_cpu_s(sandbox) - before) / NUM_RUNS
    finally:
        await sandbox.close()
    return {"backend": backend, "bare_ms": bare, "sandboxed_ms": sandboxed, "over_bare_ms": sandboxed - bare}


async def _runs(sandbox: Sandbox, count: int) -> None:
    for _ in range(count):
        outcome = await sandbox.python({"mode": "stdio", "source": ADD}, Limits(), b"1 2\n")
        if outcome.stdout != b"3\n":
            raise RuntimeError(f"a healthy program failed: {outcome}")


def _cpu_s(sandbox: Sandbox) -> float:
    """Of this process, the supervisor and all that it has or ever had."""
    own = time.process_time()
    return own + sum(process.cpu_s for process in tree(scan(), sandbox.pids[0]))


def _bare_ms() -> float:
    """CPU-ms of `python -I -S` on the same program, by the same interpreter."""
    interpreter = host.find_interpreter()
    if interpreter is None:
        raise RuntimeError("no interpreter")
    before = os.times()
    for _ in range(NUM_RUNS):
        subprocess.run([interpreter.path, "-I", "-S", "-c", ADD], input=b"1 2\n", stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return 1e3 * used / NUM_RUNS


async def stream(hang: str | None) -> Stream:
    """Judge a stream of healthy programs, one in a hundred replaced by one that hangs (if `hang`)."""
    judge = CodeJudge(SandboxSettings())
    await judge.start()
    every = round(1 / HANG_SHARE)
    slots = asyncio.Semaphore(NUM_IN_FLIGHT)
    latencies: list[float] = []
    changed = 0

    async def healthy(index: int) -> None:
        nonlocal changed
        async with slots:
            started = time.monotonic()
            spec = {"tests": [{"stdin": f"{index} 2\n", "expected": f"{index + 2}\n"}]}
            verdict = await judge.run(ADD, spec, is_program=True)
            latencies.append(time.monotonic() - started)
            changed += verdict.status is not VerdictStatus.CORRECT

    async def hanging(index: int) -> None:
        await judge.run(HANGS[hang or ""] + f"# {index}\n", {"tests": [{"stdin": "", "expected": ""}]}, is_program=True)

    try:
        hanging_tasks: list[asyncio.Task[None]] = []
        healthy_tasks: list[asyncio.Task[None]] = []
        started, cpu_before = time.monotonic(), _judge_cpu_s(judge)
        for index in range(NUM_HEALTHY):
            if hang and index % every == every // 2:
                # When its turn has come, not at the start: hangs are spread over the stream.
                await asyncio.wait(healthy_tasks[-NUM_IN_FLIGHT:], return_when=asyncio.FIRST_COMPLETED)
                hanging_tasks.append(asyncio.create_task(hanging(index)))
            healthy_tasks.append(asyncio.create_task(healthy(index)))
            if len(healthy_tasks) >= NUM_IN_FLIGHT:
                await healthy_tasks[len(healthy_tasks) - NUM_IN_FLIGHT]
        await asyncio.gather(*healthy_tasks)
        seconds, cpu_s = time.monotonic() - started, _judge_cpu_s(judge) - cpu_before
        await asyncio.gather(*hanging_tasks)
    finally:
        await judge.close()
    return Stream(NUM_HEALTHY / seconds, cpu_s, latencies, changed)


def _judge_cpu_s(judge: CodeJudge) -> float:
    return sum(process.cpu_s for pid in judge.pids for process in tree(scan(), pid))
