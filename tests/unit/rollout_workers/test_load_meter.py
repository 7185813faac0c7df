"""Figures of an engine's load."""

from __future__ import annotations

from types import SimpleNamespace

from rollout_workers.load_meter import LoadMeter


def test_gauges_are_the_latest_and_counters_add_up() -> None:
    meter = LoadMeter()
    scheduler = SimpleNamespace(num_running_reqs=4, num_waiting_reqs=2, num_skipped_waiting_reqs=1, kv_cache_usage=0.5)
    iteration = SimpleNamespace(num_generation_tokens=4, num_prompt_tokens=30, num_preempted_reqs=1)
    meter.record(scheduler, iteration)
    meter.record(None, iteration)
    scheduler.num_running_reqs = 3
    meter.record(scheduler, None)
    stats = meter.stats("rollout-0", 7)
    assert (stats.num_running, stats.num_waiting, stats.kv_cache_usage) == (3, 3, 0.5)
    assert (stats.generated_tokens, stats.prompt_tokens, stats.preemptions) == (8, 60, 2)
    assert (stats.worker, stats.policy_version) == ("rollout-0", 7)
