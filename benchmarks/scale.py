"""`rayzero bench scale`: the control plane alone, on actors that do nothing: cost a sample, capacity, weak scaling."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.null_actors import around, constant, null_recipe, null_run
from rayzero.services.bench.table import show

GROUP_SIZE = 8
GROUPS_PER_ENGINE = 4
LATENCY_S = 2.0
"""A group in a simulated engine, whatever else it computes."""
STALENESS = 2
EFFICIENT = 0.9


def run(sizes: Sequence[int], as_json: bool) -> dict[str, Any]:
    """Measure; prints and returns the figures."""
    figures = {"cost": asyncio.run(cost()), "scaling": [asyncio.run(weak_scaling(size)) for size in sizes]}
    show("the control plane", table_rows(figures), figures, as_json)
    return figures


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """For people."""
    cost_, scaling = figures["cost"], figures["scaling"]
    efficient = [row["num_engines"] for row in scaling if row["efficiency"] >= EFFICIENT]
    return [
        ("orchestration, CPU time a sample (null actors)", f"{cost_['cpu_us_per_sample']:.1f} µs"),
        ("capacity, samples/s", f"{cost_['samples_per_s']:,.0f}"),
        *(
            (
                f"{row['num_engines']} engines: samples/s, of the ideal",
                f"{row['samples_per_s']:,.0f}, {row['efficiency']:.1%}",
            )
            for row in scaling
        ),
        (f"weak scaling ≥ {EFFICIENT:.0%} up to", f"{max(efficient, default=0)} engines"),
    ]


async def cost(num_updates: int = 60, groups_per_update: int = 128) -> dict[str, float]:
    """Everything a group passes through, with actors that answer at once."""
    recipe = null_recipe(num_updates, groups_per_update, GROUP_SIZE, max_staleness=1)
    controller, _, _, _ = await null_run(recipe, 8, 32, constant(0.0), constant(0.0))
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await controller.run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    num_samples = num_updates * groups_per_update * GROUP_SIZE
    return {
        "samples": num_samples,
        "cpu_us_per_sample": cpu / num_samples * 1e6,
        "samples_per_s": num_samples / wall,
    }


async def weak_scaling(num_engines: int, rounds: int = 10) -> dict[str, float]:
    """As much work an engine, whatever their number: how much of the engines' time is used.

    Counted from the second update on, and only while there is work left to admit: the engines run dry after that.
    """
    groups = num_engines * GROUPS_PER_ENGINE
    recipe = null_recipe(rounds, groups, GROUP_SIZE, max_staleness=STALENESS)
    generation = around(LATENCY_S, seed=num_engines)
    controller, _, _, times = await null_run(recipe, num_engines, GROUPS_PER_ENGINE, generation, constant(0.0))
    controller.accuracies = {0: 0.0}  # no evaluation before the first update
    await controller.run()
    last = rounds - STALENESS - 2
    (begun, busy_begun), (ended, busy_ended) = times[1], times[last]
    seconds = ended - begun
    return {
        "num_engines": num_engines,
        "samples_per_s": (last - 1) * groups * GROUP_SIZE / seconds,
        "efficiency": (busy_ended - busy_begun) / (seconds * groups),
    }
