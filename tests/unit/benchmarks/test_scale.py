"""The benchmarks of the control plane, small; in simulated time they measure scheduling alone."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import pipeline, scale
from benchmarks.null_actors import NullEngine, constant, lognormal, null_recipe, null_run
from rayzero.services.schema.messages import GroupRequest, Sampling
from tests.fakes import make_prompt
from tests.simulated_time import run_simulated


def test_cost_counts_every_sample() -> None:
    figures = asyncio.run(scale.cost(num_updates=3, groups_per_update=8))
    assert figures["samples"] == 3 * 8 * scale.SHORT.group_size
    assert 0 < figures["cpu_us_per_sample"] < 5000


@pytest.mark.parametrize("num_engines", [4, 32])
def test_scheduling_leaves_no_engine_idle(num_engines: int) -> None:
    figures = run_simulated(scale.weak_scaling(num_engines))
    assert figures["efficiency"] > 0.95


def test_the_work_of_large_runs_leaves_none_idle_and_has_its_own_arrays() -> None:
    figures = run_simulated(scale.weak_scaling(4, scale.LARGE, rounds=6))
    assert figures["efficiency"] > 0.95
    assert figures["samples_per_s"] == pytest.approx(4 * 16 / 20, rel=0.2)
    assert 0 <= figures["late_p99_s"] <= figures["late_max_s"]
    engine = NullEngine("rollout-0", constant(0.0), num_tokens=5)
    sampling = Sampling(num_completions=2, max_tokens=5, seed=0)
    made = asyncio.run(engine.generate(GroupRequest(group_id=0, prompt=make_prompt(0), sampling=sampling)))
    first, second = made.completions[:2]
    assert first.num_tokens == 5 and first.token_ids is not second.token_ids


def test_a_strict_run_takes_turns_and_an_overlapped_one_hides_the_shorter_half() -> None:
    strict, overlapped = (run_simulated(pipeline.measure(staleness, sigma=0.0)) for staleness in (0, 1))
    assert strict["shared_efficiency"] == pytest.approx(1.0, abs=0.02)
    assert overlapped["disjoint_efficiency"] > 0.93
    assert strict["goodput"] > 0.999 and overlapped["goodput"] > 0.999


def test_long_tails_cost_no_tokens() -> None:
    assert run_simulated(pipeline.measure(2, sigma=1.0))["goodput"] >= 0.95


def test_a_batch_that_does_not_wait_for_its_slowest_groups_comes_sooner() -> None:
    """Lognormal lengths, room for all in the engines: the learner waits for the tail alone."""

    async def seconds(over_provision: float) -> tuple[float, float]:
        recipe = null_recipe(40, 16, 8, 1, over_provision)
        controller, engines, learner, _ = await null_run(recipe, 4, 32, lognormal(1.0, 1.0, seed=3), constant(0.1))
        controller.accuracies = {0: 0.0}
        await controller.run()
        goodput = learner.trained_tokens / sum(engine.generated_tokens for engine in engines)
        return asyncio.get_running_loop().time(), goodput

    (all_s, all_goodput), (spared_s, spared_goodput) = (run_simulated(seconds(share)) for share in (0.0, 0.25))
    assert spared_s < 0.75 * all_s
    assert all_goodput > 0.999 and spared_goodput > 0.75


def test_tables_say_all() -> None:
    measured = run_simulated(pipeline.measure(0, sigma=0.0))
    rows = pipeline.table_rows({"strict": measured, "overlapped": measured, "long_tail": measured, "spared": measured})
    assert len(rows) == 9
    measured = {"samples_per_s": 100.0, "efficiency": 0.95, "late_p99_s": 0.01, "late_max_s": 1.0, "peak_bytes": 0}
    sizes = [{"num_engines": 8, **measured}]
    rows = scale.table_rows({"cost": {"cpu_us_per_sample": 20.0, "samples_per_s": 1e4}, "scaling": sizes})
    assert rows[-1] == ("weak scaling ≥ 90% up to", "8 engines")
