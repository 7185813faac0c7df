"""The catalogue of Prometheus metrics: every figure that rayzero exports, declared once; dashboards, alerts and pages
name no other.

Identity (`run`, `component`, `instance`) is a target label that the run's `/sd` gives, never a label of a metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
TOKENS = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0)
VERSIONS = (0.0, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0)
TURNS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)
REWARDS = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of time series. `name` is without the prefix; a counter's is without `_total`."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """The name that PromQL knows it by."""
        return f"rayzero_{self.name}" + ("_total" if self.kind == "counter" else "")


def _run() -> Iterator[Metric]:
    yield Metric("gauge", "run_info", "1; its labels say what runs", ("version", "model", "loss"))
    yield Metric("gauge", "run_paused", "1 while the run is paused")
    yield Metric("gauge", "run_ended", "1 once the run has ended, by itself or as it was asked to")
    yield Metric("gauge", "update", "Updates made; goes on where a resumed run left off")
    yield Metric("gauge", "updates_target", "Updates after which the run ends")
    yield Metric("counter", "updates", "Updates made by this process")
    yield Metric("counter", "update_warnings", "Watched figures past their warning limit")
    yield Metric("counter", "nonfinite_figures", "Figures of updates that were not finite")
    yield Metric("gauge", "last_update_timestamp_seconds", "When the last update was done")
    yield Metric("gauge", "last_checkpoint_timestamp_seconds", "When the last checkpoint was written")
    yield Metric("gauge", "last_evaluation_timestamp_seconds", "When the last evaluation was done")
    yield Metric("gauge", "start_timestamp_seconds", "When this process began")
    yield Metric("gauge", "stall_limit_seconds", "The recipe's deadlines.stall_s")
    yield Metric("gauge", "stalled_seconds", "How long nothing was finished, or the learner has waited for groups")
    yield Metric("gauge", "waiting_seconds", "How long the learner has waited for groups; 0 while it computes")
    yield Metric("gauge", "disk_free_bytes", "Free space where the run directory is")
    yield Metric("gauge", "disk_size_bytes", "Size of the disk where the run directory is")
    yield Metric("gauge", "loop_lag_seconds", "How late the driver's event loop runs a timer")


def _learning() -> Iterator[Metric]:
    yield Metric("gauge", "reward_mean", "Mean reward of the last batch")
    yield Metric("gauge", "reward_std", "Standard deviation of the rewards of the last batch")
    yield Metric("gauge", "reward_component_mean", "Mean score of one reward in the last batch", ("reward",))
    yield Metric("gauge", "train_accuracy_ratio", "Accurate completions of the last batch, 0 to 1")
    yield Metric("gauge", "evaluation_accuracy_ratio", "Held-out accuracy of the last evaluation, as sampled, 0 to 1")
    yield Metric("gauge", "evaluation_accuracy_error", "Standard error of the held-out accuracy, over prompts")
    yield Metric("gauge", "evaluation_greedy_accuracy_ratio", "Held-out accuracy at temperature 0, where measured last")
    yield Metric("gauge", "evaluation_versions", "Policy versions that the last evaluation was sampled from")
    yield Metric("gauge", "evaluation_reward_mean", "Mean reward of the last evaluation")
    yield Metric("gauge", "completion_tokens_mean", "Mean length of the completions of the last batch")
    yield Metric("gauge", "length_bias_ratio", "Mean length trained on over that begun, less 1, 20 updates")
    yield Metric("gauge", "truncated_ratio", "Completions of the last batch that hit max_tokens, 0 to 1")
    yield Metric("gauge", "uniform_groups_ratio", "Groups of the last batch whose rewards are all equal, 0 to 1")
    yield Metric("gauge", "advantage_abs_mean", "Mean absolute advantage of the last batch")
    yield Metric("gauge", "loss", "Loss of the last update")
    yield Metric("gauge", "entropy_nats", "Mean entropy of a token in the last update")
    yield Metric("gauge", "grad_norm", "Gradient norm of the last update")
    yield Metric("gauge", "learning_rate", "Learning rate of the last update")
    yield Metric("gauge", "kl_rollout_nats", "k3 KL between sampler and learner, last update")
    yield Metric("gauge", "kl_canary_nats", "k3 KL of tokens that learner and engine scored at equal weights, last try")
    yield Metric("gauge", "kl_reference_nats", "KL to the reference policy, last update; 0 where learner.kl.beta is")
    yield Metric("gauge", "clipped_ratio", "Clipped tokens among those with a gradient, last update, 0 to 1")
    yield Metric("gauge", "outside_ratio", "Tokens whose importance ratio is outside 0.8 to 1.2, 0 to 1")
    yield Metric("gauge", "effective_sample_ratio", "Effective sample size over sample size, 0 to 1")
    yield Metric("gauge", "logprob_gap_max_nats", "Largest log-probability gap between sampler and learner")


def _flow() -> Iterator[Metric]:
    yield Metric("counter", "groups", "Groups by their end: trained on (mixed, uniform) or dropped", ("outcome",))
    yield Metric("counter", "groups_dropped", "Groups retired untrained, by reason", ("reason",))
    yield Metric("counter", "prompts_passed_over", "Turns of prompts that the curriculum passed over", ("why",))
    yield Metric("counter", "tokens_trained", "Completion tokens trained on")
    yield Metric("counter", "tokens_dropped", "Completion tokens paid for and thrown away, by reason", ("reason",))
    yield Metric("counter", "tokens_aborted", "Completion tokens of groups given up before they were complete")
    yield Metric("counter", "batches_held", "Whole batches that waited for a group about to pass its bound")
    yield Metric("counter", "worker_tokens", "Completion tokens by the rollout worker that made them", ("worker",))
    yield Metric("counter", "completions", "Completions by finish reason", ("finish_reason",))
    yield Metric("counter", "completions_mixed", "Completions with tokens of more than one policy version")
    yield Metric("histogram", "completion_tokens", "Length of a completion", buckets=TOKENS)
    yield Metric("histogram", "staleness_versions", "Staleness of a group when it is trained on", buckets=VERSIONS)
    yield Metric("counter", "groups_past_bound", "Groups trained on staler than training.max_staleness: none, ever")
    yield Metric("gauge", "max_staleness_versions", "The recipe's training.max_staleness")
    yield Metric("gauge", "groups_live", "Live groups by where they are", ("state",))
    yield Metric("gauge", "groups_oldest_seconds", "How long the oldest live group has been in its state", ("state",))
    yield Metric("gauge", "groups_room", "Groups that may be admitted now")
    yield Metric("counter", "loop_seconds", "Time of the training loop: wait, update, hold, sync", ("phase",))
    yield Metric("counter", "learner_seconds", "Time of the learner: forward, backward, optimizer, …", ("phase",))


def _workers() -> Iterator[Metric]:
    yield Metric("gauge", "workers", "Workers by state", ("role", "state"))
    yield Metric("gauge", "workers_target", "Workers that there should be", ("role",))
    yield Metric("counter", "worker_restarts", "Workers that failed and were replaced", ("role",))
    yield Metric("gauge", "worker_in_flight", "Groups that a worker holds", ("role", "worker"))
    yield Metric("gauge", "worker_limit", "Groups that a rollout worker may hold: follows its load", ("worker",))
    yield Metric("gauge", "worker_waiting", "Completions that waited inside an engine, last report", ("worker",))
    yield Metric("gauge", "worker_kv_ratio", "Key-value memory in use, last report, 0 to 1", ("worker",))
    yield Metric("gauge", "worker_version", "Policy version that a rollout worker serves", ("worker",))
    yield Metric("gauge", "worker_lag_versions", "Versions that a rollout worker is behind the learner", ("worker",))
    yield Metric("histogram", "sync_seconds", "From update ready to every engine served", buckets=SECONDS)
    yield Metric("histogram", "sync_pause_seconds", "Time an engine could not generate in a sync", buckets=SECONDS)
    yield Metric("counter", "sync_failures", "Broadcasts that had to be repeated")


def _rewards() -> Iterator[Metric]:
    yield Metric("counter", "verdicts", "Verdicts by data source and status", ("source", "status"))
    yield Metric("counter", "verdict_errors", "Verdicts that are errors, by cause", ("cause",))
    yield Metric("histogram", "verdict_seconds", "Time of a verdict", buckets=SECONDS)
    yield Metric("histogram", "rollout_reward", "Reward of a completion", ("source",), REWARDS)


def _episodes() -> Iterator[Metric]:
    yield Metric("counter", "episodes", "Episodes by why they ended", ("end",))
    yield Metric("histogram", "episode_turns", "Times that the model spoke in an episode", buckets=TURNS)
    yield Metric("histogram", "episode_seconds", "Time of an episode in engine and environment", ("where",), SECONDS)
    yield Metric("counter", "episode_forks", "Turns that could not go on with the tokens before, by why", ("reason",))
    yield Metric("counter", "tool_calls", "Tools called by the model: ok, failed", ("outcome",))


CATALOGUE: tuple[Metric, ...] = (*_run(), *_learning(), *_flow(), *_workers(), *_rewards(), *_episodes())
"""Everything, in the order in which the reference lists it."""


WORRIES = {
    "worker_waiting": "Above 0 throughout: the engine is full, which is no fault. While `rayzero_waiting_seconds` "
    "grows as well: more rollout workers, or a larger `rollout.max_num_seqs`.",
    "worker_kv_ratio": "Near 1: completions wait for key-value memory. A larger `rollout.kv_cache_bytes`.",
    "worker_version": "Behind `rayzero_update` by more than a sync takes: the worker's log says why.",
    "tokens_dropped": "More than a few in a hundred of `rayzero_tokens_trained_total`: the reason is in its label.",
    "evaluation_accuracy_error": "Gains smaller than twice this may be chance: more `evaluation.num_prompts`.",
}
"""When to worry about a metric that metrics.jsonl has no figure of."""


def reference(worries: Mapping[str, str]) -> str:
    """The catalogue as a Markdown table. `worries`, by family: when a reader should worry."""
    figures = {gauge: f" (`{figure}` in metrics.jsonl)" for figure, gauge in ROW_GAUGES.items()}
    rows = [
        f"| `{metric.family}` | {metric.kind} | {', '.join(metric.labels) or '–'} "
        f"| {metric.help}{figures.get(metric.name, '')} "
        f"| {worries.get(metric.family, '')} |"
        for metric in CATALOGUE
    ]
    head = ["| metric | type | labels | what it is | when to worry |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


ROW_GAUGES = {
    "reward_mean": "reward_mean",
    "reward_std": "reward_std",
    "train_accuracy": "train_accuracy_ratio",
    "completion_tokens_mean": "completion_tokens_mean",
    "length_bias": "length_bias_ratio",
    "truncated_share": "truncated_ratio",
    "uniform_group_share": "uniform_groups_ratio",
    "advantage_abs_mean": "advantage_abs_mean",
    "loss": "loss",
    "entropy": "entropy_nats",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "kl_rollout": "kl_rollout_nats",
    "kl_canary": "kl_canary_nats",
    "kl_reference": "kl_reference_nats",
    "clip_fraction": "clipped_ratio",
    "ratio_outside": "outside_ratio",
    "ess": "effective_sample_ratio",
    "logprob_gap_max": "logprob_gap_max_nats",
}
"""Figure of a row in metrics.jsonl -> gauge of the catalogue."""
