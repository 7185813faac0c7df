"""The catalogue's figures of one run: observed as things happen, or read from the controller when it is scraped."""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest

from rayzero.services.fleet.slots import SlotState
from rayzero.services.loop.controller import Controller
from rayzero.services.loop.episode_figures import calls_of, environment_s, turns_of
from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.loop.group_buffer import GroupState
from rayzero.services.observe.telemetry import CATALOGUE, ROW_GAUGES
from rayzero.services.schema.causes import DropReason, ErrorCause
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.messages import Completion, Group

KINDS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}

OF_WORKERS = (
    "workers",
    "worker_in_flight",
    "worker_limit",
    "worker_waiting",
    "worker_kv_ratio",
    "worker_version",
    "worker_lag_versions",
    "worker_restarts",
)
"""Gauges and counters that are read from the fleets anew at every scrape."""

MAX_SCRAPE_S = 30.0
"""A run does not wait longer for its last scrape, twice that at most."""

LEARNER_PHASES = ("prepare_s", "score_s", "pack_s", "watch_s", "forward_s", "backward_s", "optimizer_s")


class Meters:
    """An observer of the controller, and what `/metrics` answers with."""

    def __init__(self, recipe: Recipe, directory: Path, version: str) -> None:
        """A registry of its own: two runs in one process, as in tests, do not meet."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.recipe, self.directory = recipe, directory
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._metrics: dict[str, Any] = {}
        for metric in CATALOGUE:
            options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
            name = f"rayzero_{metric.name}"
            self._metrics[metric.name] = KINDS[metric.kind](
                name, metric.help, metric.labels, registry=self.registry, **options
            )
        model, loss = recipe.model.path, recipe.learner.loss.name
        self._labelled("run_info", version=version, model=model, loss=loss).set(1)
        self._metrics["updates_target"].set(recipe.training.num_updates)
        self._metrics["max_staleness_versions"].set(recipe.training.max_staleness)
        self._metrics["stall_limit_seconds"].set(recipe.deadlines.stall_s)
        self._metrics["start_timestamp_seconds"].set(time.time())
        self.num_scrapes = 0
        self._scraped_s: deque[float] = deque(maxlen=2)

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done."""
        self._metrics["updates"].inc()
        self._metrics["update_warnings"].inc(len(row.get("warnings", ())))
        self._metrics["last_update_timestamp_seconds"].set(row["time_s"])
        for figure, name in ROW_GAUGES.items():
            self._set(name, row.get(figure))
        for figure, value in row.items():
            if figure.startswith("reward/"):
                self._labelled("reward_component_mean", reward=figure.removeprefix("reward/")).set(value)
            if isinstance(value, float) and not math.isfinite(value):
                self._metrics["nonfinite_figures"].inc()
        self._observe_times(row)
        for group in groups:
            self._labelled("groups", outcome="uniform" if group.is_uniform else "mixed").inc()
            self._metrics["tokens_trained"].inc(group.num_tokens)
            staleness = max(0, row["update"] - 1 - group.oldest_version)
            self._metrics["staleness_versions"].observe(staleness)
            self._metrics["groups_past_bound"].inc(staleness > self.recipe.training.max_staleness)
            self._observe_group(group)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """One pass over the held-out prompts is done."""
        self._metrics["evaluation_accuracy_ratio"].set(evaluation.accuracy)
        self._metrics["evaluation_accuracy_error"].set(evaluation.standard_error)
        if evaluation.greedy is not None:
            self._metrics["evaluation_greedy_accuracy_ratio"].set(evaluation.greedy.mean)
        oldest, newest = evaluation.versions
        self._metrics["evaluation_versions"].set(newest - oldest + 1)
        self._metrics["evaluation_reward_mean"].set(evaluation.reward_mean)
        self._metrics["last_evaluation_timestamp_seconds"].set(time.time())

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """A finished group is retired untrained."""
        self._labelled("tokens_dropped", reason=reason.value).inc(group.num_tokens)
        self._observe_group(group)

    def on_end(self) -> None:
        """The run has ended by itself, or as it was asked to."""
        self._metrics["run_ended"].set(1)

    @property
    def scrape_interval_s(self) -> float:
        """Between the last two scrapes, at most 30 s; 0 where nothing scrapes."""
        if len(self._scraped_s) < 2 or time.monotonic() - self._scraped_s[-1] > 4 * MAX_SCRAPE_S:
            return 0.0
        return min(self._scraped_s[-1] - self._scraped_s[-2], MAX_SCRAPE_S)

    def on_loop_lag(self, seconds: float) -> None:
        """A timer of the driver's event loop was late by so much."""
        self._metrics["loop_lag_seconds"].set(seconds)

    def exposition(self, controller: Controller | None) -> bytes:
        """Everything in Prometheus' text format, the controller's state as of now."""
        self.num_scrapes += 1
        self._scraped_s.append(time.monotonic())
        disk = shutil.disk_usage(self.directory)
        self._metrics["disk_free_bytes"].set(disk.free)
        self._metrics["disk_size_bytes"].set(disk.total)
        if controller is not None:
            self._read(controller)
        return generate_latest(self.registry)

    def _observe_times(self, row: Mapping[str, Any]) -> None:
        for phase in ("wait", "update", "hold", "sync"):
            self._labelled("loop_seconds", phase=phase).inc(row[f"{phase}_s"])
        for key in LEARNER_PHASES:
            if key in row:
                self._labelled("learner_seconds", phase=key.removesuffix("_s")).inc(row[key])
        self._metrics["sync_seconds"].observe(row["sync_s"])
        self._metrics["sync_pause_seconds"].observe(row["sync_pause_s"])

    def _observe_group(self, group: Group) -> None:
        source = group.prompt.source
        self._labelled("worker_tokens", worker=group.worker or "unknown").inc(group.num_tokens)
        for rollout in group.rollouts:
            verdict, completion = rollout.verdict, rollout.completion
            self._labelled("completions", finish_reason=completion.finish_reason).inc()
            self._metrics["completions_mixed"].inc(completion.oldest_version < completion.newest_version)
            self._metrics["completion_tokens"].observe(completion.num_sampled)
            self._labelled("verdicts", source=source, status=verdict.status.value).inc()
            self._metrics["verdict_seconds"].observe(verdict.seconds)
            if completion.end is not None:
                self._observe_episode(completion)
            if verdict.is_error:
                self._labelled("verdict_errors", cause=verdict.cause or ErrorCause.UNKNOWN).inc()
            else:
                self._labelled("rollout_reward", source=source).observe(verdict.reward)

    def _observe_episode(self, episode: Completion) -> None:
        turns = list(turns_of(episode))
        made, failed = calls_of(episode)
        self._labelled("episodes", end=str(episode.end)).inc()
        self._metrics["episode_turns"].observe(len(turns))
        self._labelled("episode_seconds", where="engine").observe(sum(turn.engine_s for turn in turns))
        self._labelled("episode_seconds", where="environment").observe(environment_s(episode))
        self._labelled("tool_calls", outcome="ok").inc(made - failed)
        self._labelled("tool_calls", outcome="failed").inc(failed)
        for branch in episode.branches:
            self._labelled("episode_forks", reason=branch.reason or "unknown").inc()

    def _read(self, controller: Controller) -> None:
        buffer = controller.buffer
        self._metrics["update"].set(buffer.version)
        self._metrics["groups_room"].set(buffer.num_free)
        self._metrics["run_paused"].set(float(controller.paused))
        self._metrics["stalled_seconds"].set(controller.stalled_s)
        self._metrics["waiting_seconds"].set(controller.waiting_s)
        now, oldest = buffer.clock(), dict.fromkeys(GroupState, 0.0)
        for entry in buffer.entries.values():
            oldest[entry.state] = max(oldest[entry.state], now - entry.since_s)
        for state, count in buffer.counts().items():
            self._labelled("groups_live", state=state).set(count)
            self._labelled("groups_oldest_seconds", state=state).set(oldest[GroupState(state)])
        dropped = self._metrics["groups_dropped"]
        dropped.clear()
        for reason, count in buffer.dropped.items():
            dropped.labels(reason=reason.value).inc(count)
        # Of the buffer, not of `on_drop`: a group that is dropped before it was finished never comes there.
        ended = self._labelled("groups", outcome="dropped")
        ended.reset()
        ended.inc(buffer.dropped.total())
        passed = self._metrics["prompts_passed_over"]
        passed.clear()
        for why, count in controller.prompts.counts().items():
            passed.labels(why=why).inc(count)
        self._count("tokens_aborted", controller.runner.aborted_tokens)
        self._count("batches_held", buffer.num_held)
        self._count("sync_failures", controller.sync.failures)
        self._read_workers(controller)
        self._read_checkpoint()

    def _read_workers(self, controller: Controller) -> None:
        for name in OF_WORKERS:
            self._metrics[name].clear()  # a worker that has left leaves no figures behind
        for fleet in controller.runner.fleets:
            self._labelled("workers_target", role=fleet.role).set(fleet.target)
            self._labelled("worker_restarts", role=fleet.role).inc(fleet.restarts)
            for state in SlotState:
                count = sum(slot.state is state for slot in fleet.slots)
                self._labelled("workers", role=fleet.role, state=state.value).set(count)
            for slot in fleet.slots:
                self._labelled("worker_in_flight", role=fleet.role, worker=slot.name).set(slot.in_flight)
        for slot in controller.rollouts.serving():
            self._labelled("worker_limit", worker=slot.name).set(slot.limit.value)
            self._labelled("worker_waiting", worker=slot.name).set(slot.limit.num_waiting)
            self._labelled("worker_kv_ratio", worker=slot.name).set(slot.limit.kv_use)
            self._labelled("worker_version", worker=slot.name).set(slot.policy_version)
            lag = max(0, controller.buffer.version - slot.policy_version)
            self._labelled("worker_lag_versions", worker=slot.name).set(lag)

    def _read_checkpoint(self) -> None:
        written = [path.stat().st_mtime for path in (self.directory / "checkpoints").glob("update_*")]
        if written:
            self._metrics["last_checkpoint_timestamp_seconds"].set(max(written))

    def _count(self, name: str, value: int) -> None:
        """A counter that is kept elsewhere."""
        self._metrics[name].reset()
        self._metrics[name].inc(value)

    def _set(self, name: str, value: float | None) -> None:
        if value is not None:
            self._metrics[name].set(value)

    def _labelled(self, name: str, **labels: str) -> Any:
        return self._metrics[name].labels(**labels)
