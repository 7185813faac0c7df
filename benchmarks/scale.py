"""`rayzero bench scale`: the control plane alone, on actors that do nothing: cost a sample, capacity, weak scaling."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.null_actors import around, constant, null_recipe, null_run
from rayzero.services.bench.table import show
from rayzero.services.run.garbage import collected_seldom

STALENESS = 2
EFFICIENT = 0.9
PROBE_S = 0.01


@dataclass(frozen=True, slots=True)
class Work:
    """What each simulated engine does."""

    group_size: int
    groups_per_engine: int
    """At a time; a batch is as many for each engine."""
    latency_s: float
    """A group, whatever else the engine computes; between half of it and one and a half."""
    num_tokens: int = 0
    """Of each completion, whose arrays are made; 0: one short completion for all."""


SHORT = Work(group_size=8, groups_per_engine=4, latency_s=2.0)
LARGE = Work(group_size=16, groups_per_engine=1, latency_s=20.0, num_tokens=2048)
"""As engines of large models on many GPUs have it."""


def run(sizes: Sequence[int], as_json: bool, work: Work = SHORT) -> dict[str, Any]:
    """Measure; prints and returns the figures."""
    figures = {"cost": asyncio.run(cost()), "scaling": [asyncio.run(weak_scaling(size, work)) for size in sizes]}
    show("the control plane", table_rows(figures), figures, as_json)
    return figures


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """For people."""
    cost_, scaling = figures["cost"], figures["scaling"]
    efficient = [row["num_engines"] for row in scaling if row["efficiency"] >= EFFICIENT]
    return [
        ("orchestration, CPU time a sample (null actors)", f"{cost_['cpu_us_per_sample']:.1f} µs"),
        ("capacity, samples/s", f"{cost_['samples_per_s']:,.0f}"),
        *(cells for row in scaling for cells in _size_rows(row)),
        (f"weak scaling ≥ {EFFICIENT:.0%} up to", f"{max(efficient, default=0)} engines"),
    ]


def _size_rows(row: dict[str, float]) -> list[tuple[str, str]]:
    engines = f"{row['num_engines']} engines"
    return [
        (f"{engines}: samples/s, of the ideal", f"{row['samples_per_s']:,.0f}, {row['efficiency']:.1%}"),
        (f"{engines}: event loop late, p99, most", f"{row['late_p99_s'] * 1e3:.1f}, {row['late_max_s'] * 1e3:.0f} ms"),
        (f"{engines}: most memory of this process", f"{row['peak_bytes'] / 2**30:.1f} GiB"),
    ]


async def cost(num_updates: int = 60, groups_per_update: int = 128) -> dict[str, float]:
    """Everything a group passes through, with actors that answer at once."""
    recipe = null_recipe(num_updates, groups_per_update, SHORT.group_size, max_staleness=1)
    controller, _, _, _ = await null_run(recipe, 8, 32, constant(0.0), constant(0.0))
    with collected_seldom():
        wall, cpu = time.perf_counter(), time.process_time()
        await controller.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    num_samples = num_updates * groups_per_update * SHORT.group_size
    return {
        "samples": num_samples,
        "cpu_us_per_sample": cpu / num_samples * 1e6,
        "samples_per_s": num_samples / wall,
    }


async def weak_scaling(num_engines: int, work: Work = SHORT, rounds: int = 10) -> dict[str, float]:
    """As much work an engine, whatever their number: how much of the engines' time is used.

    Counted from the second update on, and only while there is work left to admit: the engines run dry after that.
    """
    groups = num_engines * work.groups_per_engine
    recipe = null_recipe(rounds, groups, work.group_size, max_staleness=STALENESS)
    generation = around(work.latency_s, seed=num_engines)
    controller, _, _, times = await null_run(
        recipe, num_engines, work.groups_per_engine, generation, constant(0.0), work.num_tokens
    )
    controller.accuracies = {0: 0.0}  # no evaluation before the first update
    late: list[float] = []
    probe = asyncio.create_task(_probe(late))
    with collected_seldom():
        await controller.run()
    probe.cancel()
    last = rounds - STALENESS - 2
    (begun, busy_begun), (ended, busy_ended) = times[1], times[last]
    seconds = ended - begun
    return {
        "num_engines": num_engines,
        "samples_per_s": (last - 1) * groups * work.group_size / seconds,
        "efficiency": (busy_ended - busy_begun) / (seconds * groups),
        "late_p99_s": float(np.quantile(late, 0.99)),
        "late_max_s": max(late),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


async def _probe(late: list[float]) -> None:
    """Note how much later than it should the event loop comes back to a task."""
    clock = asyncio.get_running_loop().time
    while True:
        begun = clock()
        await asyncio.sleep(PROBE_S)
        late.append(clock() - begun - PROBE_S)
