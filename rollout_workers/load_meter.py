"""How busy an engine is, from what vLLM tells its stat loggers after every step."""

from __future__ import annotations

from typing import Any

from rayzero.services.schema.messages import RolloutStats


class LoadMeter:
    """The latest figures of one engine. Gauges are as of the last step; counters run from the start."""

    def __init__(self) -> None:
        self._num_running = 0
        self._num_waiting = 0
        self._kv_cache_usage = 0.0
        self._generated_tokens = 0
        self._prompt_tokens = 0
        self._preemptions = 0
        self._displaced = 0
        """Completions that new weights pushed out of the engine, as long as fewer run than did before."""
        self._forgiven = 0
        """Preemptions that new weights brought about and the engine has yet to count."""

    def on_new_weights(self, preempted: bool) -> None:
        """All that runs begins anew with keys and values: no sign of a load that is too high.

        `preempted`: by the engine itself, which will count it.
        """
        self._displaced = self._num_running
        self._forgiven = self._num_running if preempted else 0

    def record(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        """Take in one step (vLLM's `SchedulerStats` and `IterationStats`, either may be None)."""
        if scheduler_stats is not None:
            self._num_running = scheduler_stats.num_running_reqs
            waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            self._displaced = self._displaced if waiting > 0 and self._num_running < self._displaced else 0
            self._num_waiting = max(0, waiting - max(0, self._displaced - self._num_running))
            self._kv_cache_usage = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self._generated_tokens += iteration_stats.num_generation_tokens
            self._prompt_tokens += iteration_stats.num_prompt_tokens
            forgiven = min(self._forgiven, iteration_stats.num_preempted_reqs)
            self._forgiven -= forgiven
            self._preemptions += iteration_stats.num_preempted_reqs - forgiven

    def stats(self, worker: str, policy_version: int) -> RolloutStats:
        """The figures as a message."""
        return RolloutStats(
            worker=worker,
            policy_version=policy_version,
            num_running=self._num_running,
            num_waiting=self._num_waiting,
            kv_cache_usage=self._kv_cache_usage,
            generated_tokens=self._generated_tokens,
            prompt_tokens=self._prompt_tokens,
            preemptions=self._preemptions,
        )
