"""`rayzero bench pipeline`: what the scheduling gives away: overlap of generating and learning, and the long tail.

Simulated engines and learner: their times are chosen, so the best that could be had is known.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.null_actors import constant, lognormal, null_recipe, null_run
from rayzero.services.bench.table import show

GROUP_SIZE = 8
GROUPS_PER_UPDATE = 16
NUM_ENGINES = 4
NUM_UPDATES = 30
SPARED = 0.25
"""`training.over_provision` of the run that does not wait for its slowest groups."""
STEP_S = 0.1
"""A batch's generation, and an update."""


def run(as_json: bool) -> dict[str, Any]:
    """Measure; prints and returns the figures."""
    figures = {
        "strict": asyncio.run(measure(0, sigma=0.0)),
        "overlapped": asyncio.run(measure(1, sigma=0.0)),
        "long_tail": asyncio.run(measure(2, sigma=1.0)),
        "spared": asyncio.run(measure(2, sigma=1.0, over_provision=SPARED)),
    }
    show("the pipeline, on simulated actors", table_rows(figures), figures, as_json)
    return figures


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """For people."""
    strict, overlapped, tail = figures["strict"], figures["overlapped"], figures["long_tail"]
    spared = figures["spared"]
    return [
        ("R, generation alone / L, learner alone", f"{strict['generation_rate']:.0f} / {strict['learner_rate']:.0f}"),
        ("X at staleness 0, samples/s", f"{strict['samples_per_s']:.0f}"),
        ("X · (1/R + 1/L): of the bound on shared cores", f"{strict['shared_efficiency']:.3f}"),
        ("X at staleness 1, samples/s", f"{overlapped['samples_per_s']:.0f}"),
        ("X / min(R, L): of the bound on disjoint resources", f"{overlapped['disjoint_efficiency']:.3f}"),
        ("lognormal lengths (σ = 1), staleness 2, samples/s", f"{tail['samples_per_s']:.0f}"),
        ("goodput: tokens handed to the learner ÷ generated", f"{tail['goodput']:.3f}"),
        (f"the same, over_provision {SPARED:g}, samples/s", f"{spared['samples_per_s']:.0f}"),
        ("its goodput", f"{spared['goodput']:.3f}"),
    ]


async def measure(max_staleness: int, sigma: float, over_provision: float = 0.0) -> dict[str, float]:
    """One run. A batch's groups are generated side by side, so R is a batch a step."""
    recipe = null_recipe(NUM_UPDATES, GROUPS_PER_UPDATE, GROUP_SIZE, max_staleness, over_provision)
    generation = constant(STEP_S) if sigma == 0 else lognormal(STEP_S, sigma, seed=0)
    per_engine = GROUPS_PER_UPDATE // NUM_ENGINES
    controller, engines, learner, _ = await null_run(recipe, NUM_ENGINES, per_engine, generation, constant(STEP_S))
    controller.accuracies = {0: 0.0}  # no evaluation before the first update
    clock = asyncio.get_running_loop().time
    begun = clock()
    await controller.run()
    seconds = clock() - begun
    rate = GROUPS_PER_UPDATE * GROUP_SIZE / STEP_S
    samples_per_s = NUM_UPDATES * GROUPS_PER_UPDATE * GROUP_SIZE / seconds
    generated = sum(engine.generated_tokens for engine in engines)
    return {
        "seconds": seconds,
        "generation_rate": rate,
        "learner_rate": rate,
        "samples_per_s": samples_per_s,
        "shared_efficiency": samples_per_s * (2 / rate),
        "disjoint_efficiency": samples_per_s / rate,
        "goodput": learner.trained_tokens / generated,
    }
