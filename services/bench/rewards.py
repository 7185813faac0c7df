"""`rayzero bench rewards`: how right, how quick and how steady the reward workers are on this machine.

- Math: rayzero's verifier and math-verify on the hand-labelled corpus, in a checkout of rayzero.
- Workers: verdicts a second and latency through the child pool, one child a CPU, on the corpus' cases; elsewhere on
  generated ones, which are easier.
- Hangs: how much of that throughput is left to healthy items when 1 % of all items hang, asleep or spinning in C code,
  and whether any healthy verdict changes.
- Sandbox: what a sandboxed Python test costs over a bare interpreter.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.rewards.children.child import ChildFailure
from rayzero.rewards.children.pool import ChildPool
from rayzero.services.bench.reward_work import ASLEEP, SPINNING
from rayzero.services.bench.table import show

NUM_GENERATED = 2000
NUM_ROUNDS = 3
HANG_EVERY = 100
SPIN_S = 0.5
"""What a spinning item may take of a CPU. Training allows more; the share that it takes is reported."""
SLEEP_S = 2.0
"""Deadline of an item asleep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolRun:
    """One pass of all items through a pool."""

    verdicts: tuple[bool | None, ...]
    """One an item; None for those that hang."""
    latencies_s: tuple[float, ...]
    """Of healthy items, from the start of the work."""
    healthy_s: float
    """From the first item to the last healthy verdict."""
    cpu_s: float
    """CPU seconds of everything together, starting the pool included."""
    causes: tuple[str, ...]
    """How the hanging items ended, and healthy ones that failed."""

    @property
    def healthy_per_s(self) -> float:
        """Healthy verdicts a second."""
        return len(self.latencies_s) / self.healthy_s


def run(
    cases: Sequence[tuple[str, str]],
    as_json: bool = False,
    measure_math: Callable[[], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Measure on `cases` of (completion, gold), print a table (or JSON) and return the figures.

    With `measure_math`, which makes the figures of the verifiers, it takes about ten minutes, else two.
    """
    from rayzero.services.bench import sandbox_cost

    figures: dict[str, Any] = {} if measure_math is None else {"math": measure_math()}
    figures |= asyncio.run(bench_workers(cases))
    figures["sandbox"] = sandbox_cost.run()
    show("Rewards, on generated cases" if measure_math is None else "Rewards", list(_rows(figures)), figures, as_json)
    return figures


def generated_cases(number: int = NUM_GENERATED) -> list[tuple[str, str]]:
    """Whole numbers, fractions, decimals, sets, intervals and terms, no two alike; half of the answers are wrong."""
    kinds = (
        "{a}",
        r"\frac{{{a}}}{{{b}}}",
        "{a}.{b}",
        r"\{{{a}, {b}\}}",
        "({a}, {c}]",
        "{a}x^2 + {b}x",
        r"\sqrt{{{a}}}",
    )
    cases = []
    for index in range(number):
        kind = kinds[index % len(kinds)]
        gold = kind.format(a=index + 2, b=index + 3, c=index + 9)
        answer = gold if index % 2 else kind.format(a=index + 3, b=index + 3, c=index + 9)
        cases.append((f"So the answer is \\boxed{{{answer}}}.", gold))
    return cases


async def bench_workers(cases: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Throughput and latency, then what hanging items cost the healthy ones. Rounds alternate: load hits all alike.

    Every case once: a verifier's caches are not to be measured. In a mixed order: no stretch of hard ones.
    """
    healthy = list(cases)
    random.Random(0).shuffle(healthy)
    items = {kind: _with_hanging(healthy, kind) for kind in ("", ASLEEP, SPINNING)}
    runs: dict[str, list[PoolRun]] = {kind: [] for kind in items}
    for _ in range(NUM_ROUNDS):
        for kind, work in items.items():
            runs[kind].append(await _pass_through(work))
    start_cpu_s = min([(await _pass_through([])).cpu_s for _ in range(NUM_ROUNDS)])
    base = _median(runs[""])
    figures: dict[str, Any] = {
        "workers": {
            "num_children": _num_cpus(),
            "verdicts_per_s": base.healthy_per_s,
            "p50_ms": 1e3 * _quantile(base.latencies_s, 0.5),
            "p99_ms": 1e3 * _quantile(base.latencies_s, 0.99),
            "cpu_ms_per_verdict": _cpu_ms(base, start_cpu_s),
        }
    }
    for kind in (ASLEEP, SPINNING):
        figures[f"hanging_{kind}"] = _hang_figures(base, _median(runs[kind]), kind, start_cpu_s)
    return figures


async def _pass_through(items: list[tuple[str, str]]) -> PoolRun:
    """All items at once through a pool of its own."""
    pool = ChildPool(
        "rayzero.services.bench.reward_work:verifier",
        num_children=_num_cpus(),
        max_asleep=64,
        deadline_s=SLEEP_S if any(gold == ASLEEP for _, gold in items) else 60.0,
        cpu_s=SPIN_S,
        memory_bytes=2**30,
        preload=("rayzero.services.bench.reward_work", "rayzero.rewards.math.verify"),
        warm_up="rayzero.rewards.children.warm_up:math_steps",
        warm_first=True,  # as in training
    )
    verdicts: list[bool | None] = [None] * len(items)
    latencies: list[float] = []
    causes: list[str] = []
    started = done_at = 0.0
    cpu_before_s = _cpu_seconds()

    async def one(index: int) -> None:
        nonlocal done_at
        try:
            reply = await pool.run(items[index])
        except ChildFailure as failure:
            causes.append(failure.cause)
            return
        verdicts[index] = reply.result[0]
        latencies.append(reply.seconds)
        done_at = time.perf_counter()

    try:
        await asyncio.gather(*(pool.run(("\\boxed{1}", "1")) for _ in range(_num_cpus())))
        started = done_at = time.perf_counter()
        await asyncio.gather(*(one(index) for index in range(len(items))))
    finally:
        await pool.close()
    return PoolRun(
        verdicts=tuple(verdicts),
        latencies_s=tuple(sorted(latencies)),
        healthy_s=done_at - started,
        cpu_s=_cpu_seconds() - cpu_before_s,
        causes=tuple(causes),
    )


def _with_hanging(healthy: list[tuple[str, str]], kind: str) -> list[tuple[str, str]]:
    """The same items, every hundredth replaced by one that hangs."""
    if not kind:
        return healthy
    return [("", kind) if index % HANG_EVERY == HANG_EVERY // 2 else item for index, item in enumerate(healthy)]


def _hang_figures(base: PoolRun, hanging: PoolRun, kind: str, start_cpu_s: float) -> dict[str, Any]:
    spun_s = SPIN_S * _expected_hanging(hanging) if kind == SPINNING else 0.0
    pairs = zip(base.verdicts, hanging.verdicts, strict=True)
    return {
        "healthy_per_s": hanging.healthy_per_s,
        "drop_percent": 100 * (1 - hanging.healthy_per_s / base.healthy_per_s),
        "cpu_share_percent": 100 * spun_s / (hanging.cpu_s - start_cpu_s),
        "cpu_ms_per_verdict": _cpu_ms(hanging, start_cpu_s + spun_s),
        "changed_verdicts": sum(after is not None and after != before for before, after in pairs),
        "failed_healthy": len(hanging.causes) - _expected_hanging(hanging),
        "p99_ms": 1e3 * _quantile(hanging.latencies_s, 0.99),
    }


def _cpu_ms(run: PoolRun, others_s: float) -> float:
    """CPU milliseconds a healthy verdict: what its worth in throughput is, however busy the machine is with others."""
    return 1e3 * (run.cpu_s - others_s) / len(run.latencies_s)


def _cpu_seconds() -> float:
    """Of this process and of everything it started that has ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _expected_hanging(run: PoolRun) -> int:
    return sum(index % HANG_EVERY == HANG_EVERY // 2 for index in range(len(run.verdicts)))


def _median(runs: list[PoolRun]) -> PoolRun:
    return sorted(runs, key=lambda each: each.healthy_per_s)[len(runs) // 2]


def _quantile(values: tuple[float, ...], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _rows(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value) of every figure."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)
