"""Figures of an engine's load."""

from __future__ import annotations

from types import SimpleNamespace

from rayzero.rollout_workers.load_meter import LoadMeter


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


def test_what_new_weights_push_out_is_no_sign_of_too_many_groups() -> None:
    meter = LoadMeter()

    def step(running: int, waiting: int, preempted: int = 0) -> tuple[int, int]:
        scheduler = SimpleNamespace(
            num_running_reqs=running, num_waiting_reqs=waiting, num_skipped_waiting_reqs=0, kv_cache_usage=0.5
        )
        meter.record(
            scheduler,
            SimpleNamespace(num_generation_tokens=1, num_prompt_tokens=0, num_preempted_reqs=preempted),
        )
        stats = meter.stats("rollout-0", 1)
        return stats.num_waiting, stats.preemptions

    assert step(8, 0) == (0, 0)
    meter.on_new_weights(preempted=True)
    assert step(2, 6, preempted=2) == (0, 0), "the six that wait are computed anew"
    assert step(5, 4, preempted=3) == (1, 0), "one of the four has never begun"
    assert step(8, 1, preempted=4) == (1, 1), "all run again: now one was really pushed out"
    assert step(7, 2) == (2, 1)
