"""The catalogue of recorded figures: every name that metrics.jsonl and evaluations.jsonl hold, with its unit, what it
means and when to worry. Prometheus has most of them under names of its own: services/observe/telemetry.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rayzero.services.schema.config.learner import WatchSettings


@dataclass(frozen=True, slots=True)
class Figure:
    """One name in a row. A name that ends in `/` stands for all that begin with it."""

    name: str
    unit: str
    meaning: str
    worry: str = ""
    """When a reader should, and what to look at first; empty: no value of it is bad by itself."""


def _batch() -> Iterator[Figure]:
    yield Figure("update", "count", "Updates made, this one included: the policy's version after it.")
    yield Figure("samples", "completions", "Completions with a verdict: those that were trained on.")
    yield Figure(
        "verdict_errors", "completions", "Completions without a verdict: left out of every mean and of the loss.",
        "More than a few in a hundred: `rayzero samples RUN --status error` shows their reasons.",
    )  # fmt: skip
    yield Figure(
        "reward_mean", "reward", "Mean reward of the judged completions, all components weighted together.",
        "It rises while `accuracy` of the evaluations falls: the model found a reward that is not the task.",
    )  # fmt: skip
    yield Figure(
        "reward_std", "reward", "Standard deviation of the rewards over the whole batch (population).",
        "0 for several updates: no completion is better than another, and nothing is learnt.",
    )  # fmt: skip
    yield Figure("reward/", "score", "Mean score of one reward component, before its weight.")
    yield Figure(
        "train_accuracy", "share", "Completions that count as accurate, as in an evaluation.",
        "Near 0, first and last: compare three prompts with their gold answers (`rayzero samples RUN`) before you "
        "call them too hard.",
    )  # fmt: skip
    yield Figure("correct_share", "share", "Completions whose every weighted component has its full score.")
    yield Figure(
        "uniform_group_share", "share", "Groups whose rewards are all equal: they have no advantage and teach nothing.",
        "Near 1: the prompts are all too hard or all too easy. Look at `train_accuracy`; `data.curriculum` and "
        "`training.skip_uniform_groups` are made for it.",
    )  # fmt: skip
    yield Figure("completion_tokens", "tokens", "Sampled tokens of the judged completions, all turns and branches.")
    yield Figure(
        "completion_tokens_mean", "tokens", "Mean length of a judged completion, in sampled tokens.",
        "It climbs towards `rollout.sampling.max_tokens` while the reward stands still: length blow-up.",
    )  # fmt: skip
    yield Figure("completion_tokens_max", "tokens", "The longest judged completion of the batch.")
    yield Figure(
        "truncated_share", "share", "Completions that ran out of tokens: `rollout.sampling.max_tokens`, or the window.",
        "More than a tenth: raise max_tokens, or punish length (a reward of kind `overlong`).",
    )  # fmt: skip
    yield Figure(
        "trained_tokens", "tokens", "Completion tokens, each completion's prompt, and what an environment said in it."
    )


def _episodes() -> Iterator[Figure]:
    yield Figure("episode_turns_mean", "turns", "Mean number of times that the model spoke in an episode.")
    yield Figure("episode_observed_tokens_mean", "tokens", "Mean of what an episode's environment said: never trained.")
    yield Figure("episode_engine_s_mean", "seconds", "Mean time that an episode's turns took in the engine.")
    yield Figure(
        "episode_environment_s_mean", "seconds", "Mean time that an episode's environment took to answer.",
        "More than the engine's: add environment workers (`rayzero scale environment=4`), or make its steps quicker.",
    )  # fmt: skip
    yield Figure(
        "episode_forks_mean", "branches", "Mean number of times that a turn could not go on with the tokens before it.",
        "Above 0 where the environment only appends: the template rewrites history, and turns are computed twice.",
    )  # fmt: skip
    yield Figure("tool_calls_mean", "calls", "Mean number of tools called in an episode.")
    yield Figure(
        "tool_failure_share", "share", "Tool calls that raised, or could not be read.",
        "It does not fall: the model does not learn the call's form. Show one in the prompt.",
    )  # fmt: skip
    yield Figure(
        "episode_end/", "share", "Episodes that ended so: `answered`, `max_turns`, `step_deadline`, …",
        "`environment_error` above a few in a hundred: `rayzero samples RUN --status error` has the reasons.",
    )  # fmt: skip


def _objective() -> Iterator[Figure]:
    yield Figure("loss", "loss", "The objective with its sign turned. Near 0 by construction at one step a batch.")
    yield Figure(
        "grad_norm", "norm", "Norm of the whole gradient before clipping.",
        "A jump of ten times over its usual value, or not finite: lower the learning rate.",
    )  # fmt: skip
    yield Figure(
        "learning_rate", "rate", "What the schedule gave this update.",
        "0 long before the end, or far from the usual one that `rayzero check` names.",
    )  # fmt: skip
    yield Figure(
        "advantage_abs_mean", "advantage", "Mean absolute advantage; 0: nothing was learnt from this batch.",
        "0 again and again: read `uniform_group_share`.",
    )  # fmt: skip
    yield Figure(
        "entropy", "nats", "Mean entropy of the policy's next token, over all tokens of the batch.",
        "It falls towards 0 while accuracy stands still: the policy has collapsed. Higher temperature, smaller "
        "learning rate, asymmetric clips or a KL term.",
    )  # fmt: skip
    yield Figure(
        "clip_fraction", "share", "Of the tokens that gave a gradient, those whose ratio was clipped. 0 at one step a "
        "batch, unless `learner.correction` is `rollout_as_old`.",
        "Above 0.2 or so: the policy moves further in a batch than the clips allow, and those tokens teach "
        "nothing. Lower the learning rate, or take fewer `learner.inner_epochs` and `learner.minibatches`.",
    )  # fmt: skip
    yield Figure(
        "ratio_mean", "ratio", "Mean π / π_old: the policy now over the policy at the start of the batch; of the "
        "tokens that gave a gradient.",
        "Away from 1 by more than a tenth: as for `clip_fraction`.",
    )  # fmt: skip
    yield Figure(
        "correction_mean", "weight", "Mean weight that corrects for the sampler's distribution, 0 of what is "
        "rejected; of the tokens that gave a gradient.",
        "Well below 1: many samples are rejected or cut down, for staleness or because engine and learner "
        "disagree. Look at `kl_rollout_fresh`.",
    )  # fmt: skip
    yield Figure(
        "kl_reference", "nats", "KL to the reference policy, by `learner.kl.estimator`; only with a KL term. With "
        "`place: reward` of the tokens that gave a gradient.",
        "It grows without end: raise `learner.kl.beta`, or refresh the reference on purpose.",
    )  # fmt: skip
    yield Figure("fed_tokens", "tokens", "Tokens that went through the model; shared prompts are counted once.")


def _by_dtype(limit: int) -> str:
    """The KL's limits, (warn, stop), that hold where a recipe gives none."""
    names = ("bfloat16", "float16", "float32")
    return ", ".join(f"{WatchSettings().kl_limits(name)[limit]:g} in {name}" for name in names)


def _mismatch() -> Iterator[Figure]:
    same = "Over tokens that were sampled from exactly the learner's weights. "
    watch = WatchSettings()
    yield Figure(
        "kl_rollout", "nats", "k3-KL between the engine that sampled and the learner at the start of the "
        "batch, mean over tokens. Staleness is in it; it has no limit of its own.",
        "It grows while `kl_rollout_fresh` or `kl_canary` does not: samples are staler, or steps larger. They grow "
        "with it: the two compute different models.",
    )  # fmt: skip
    yield Figure(
        "kl_rollout_fresh", "nats", same + "The same mean k3-KL: what is left is rounding.",
        f"Over `learner.watch.kl_warn` ({_by_dtype(0)}): sampler and learner compute different models; over `kl_stop` "
        f"({_by_dtype(1)}) the run halts, with `min_tokens` ({watch.min_tokens}) to judge by.",
    )  # fmt: skip
    yield Figure(
        "kl_canary", "nats", "k3-KL, mean over tokens, of a fixed sample that learner and engine both scored after a "
        "sync, at equal weights: also in overlapped runs. Only after syncs that `rollout.canary_every_syncs` chooses.",
        "As for `kl_rollout_fresh`.",
    )  # fmt: skip
    yield Figure("scored_tokens", "tokens", "Tokens that gave no gradient and were scored for these figures alone.")
    yield Figure("fresh_tokens", "tokens", "Tokens that were sampled from exactly the learner's weights.")
    yield Figure(
        "nonfinite_logprobs", "tokens", "Tokens whose log-probability was not finite on one side; left out.",
        "Any: one of the two computed an overflow. Try bfloat16 instead of fp8 first.",
    )  # fmt: skip
    yield Figure("logprob_gap_mean", "nats", "Mean |log π_learner − log π_engine| of a token.")
    yield Figure("logprob_gap_mean_fresh", "nats", same + "Mean |log π_learner − log π_engine|.")
    yield Figure(
        "logprob_gap_max", "nats", "The largest of these gaps.",
        "It grows from update to update: read `kl_rollout_fresh`, which leaves staleness out.",
    )  # fmt: skip
    yield Figure("logprob_gap_max_fresh", "nats", same + "The largest gap.")
    yield Figure(
        "ratio_outside", "share", "Tokens whose π_learner / π_engine is outside 0.8 … 1.2.",
        "It climbs: samples are staler, or steps larger. Look at `ess`.",
    )  # fmt: skip
    yield Figure("ratio_outside_fresh", "share", same + "Share outside 0.8 … 1.2.")
    yield Figure(
        "ess", "share", "Effective sample size of the importance weights over their number, (Σw)² / (n · Σw²), where w "
        "= π_learner / π_engine of each of the n tokens; 1: nothing is lost.",
        f"Under `learner.watch.ess_warn` ({watch.ess_warn:g}): samples are too stale, or sampler and learner disagree; "
        f"under `ess_stop` ({watch.ess_stop:g}) the run halts.",
    )  # fmt: skip
    yield Figure("ess_fresh", "share", same + "Effective sample size.")
    yield Figure(
        "routing_differs", "share", "Under `learner.routing_replay`: of the pairs of a fed token and a layer, those "
        "that the learner's own router would have sent to other experts than the engine did.",
        "A jump from one update to the next: engine and learner hold other routers.",
    )  # fmt: skip
    yield Figure(
        "routing_unknown", "share", "Under `learner.routing_replay`: fed tokens for which no engine said which experts "
        "it chose; the learner's own router chose for them.",
        "Above 0: the engine's log says why.",
    )  # fmt: skip


def _times() -> Iterator[Figure]:
    yield Figure(
        "wait_s", "seconds", "The learner waited for a whole batch of groups.",
        "Most of the time: add rollout workers, or raise `training.max_staleness`.",
    )  # fmt: skip
    yield Figure(
        "update_s", "seconds", "The learner computed the update.",
        "Most of the time: more learner GPUs, larger `learner.compute.tokens_per_microbatch`.",
    )  # fmt: skip
    yield Figure(
        "hold_s", "seconds", "New weights were held back for an evaluation.",
        "A large part of an update: evaluate less often (`evaluation.every_updates`), or fewer prompts.",
    )  # fmt: skip
    yield Figure(
        "sync_s", "seconds", "From update ready to every engine serving it.",
        "More than a tenth of an update, again and again (a worker that joins makes one long sync): the network "
        "between learner and engines is slow; `cluster.delta_sync` sends only what changed.",
    )  # fmt: skip
    yield Figure("sync_receive_s", "seconds", "Of it: bytes under way and checked; generation goes on.")
    yield Figure("sync_bytes", "bytes", "Sent to each engine: all weights, or, with `cluster.delta_sync`, what is new.")
    yield Figure("sync_pause_s", "seconds", "Of it: an engine could not generate.")
    for phase, what in {
        "prepare": "laid the batch out",
        "score": "computed log-probabilities of the old and the reference policy",
        "pack": "packed samples into micro-batches",
        "watch": "scored tokens that give no gradient, for the figures alone",
        "forward": "ran forward",
        "backward": "ran backward",
        "optimizer": "stepped",
    }.items():
        yield Figure(f"{phase}_s", "seconds", f"Of the update: the learner {what}.")
    yield Figure("time_s", "Unix time", "When the row was written: its weights were served.")


def _flow() -> Iterator[Figure]:
    yield Figure(
        "staleness_mean", "versions", "Learner's version less that of a group's oldest token.",
        "Near the bound is no fault: the engines are ahead of the learner. While `ess` falls or `kl_rollout` "
        "grows: a smaller `training.max_staleness`.",
    )  # fmt: skip
    yield Figure(
        "staleness_max", "versions", "The stalest group of the batch. Never above `training.max_staleness`.",
        "As for `staleness_mean`.",
    )  # fmt: skip
    yield Figure(
        "dropped_groups", "groups", "Groups dropped since the start; summary.json has the reasons.",
        "It grows by more than a few an update: `length_bias` says what it costs. `training.on_stale: wait` drops "
        "none.",
    )  # fmt: skip
    yield Figure(
        "length_bias", "share", "Mean length that is trained on over the mean that was begun, less 1, of 20 updates. "
        "0 where nothing is dropped for being late, or for a limit that ended the episode.",
        "Below -0.1: what is dropped leans the batches towards short completions.",
    )  # fmt: skip
    yield Figure(
        "completion_tokens_mean_begun", "tokens", "Mean length of the completions that were begun, over the "
        "same updates; where late groups were dropped.",
    )  # fmt: skip
    yield Figure(
        "held_batches", "batches", "Whole batches that waited for a group about to be too stale.",
        "It grows with nearly every update: some groups take much longer than the others. More rollout workers, or "
        "a larger `training.max_staleness`.",
    )  # fmt: skip
    yield Figure(
        "num_rollout_workers", "workers", "Rollout workers that took the weights of this update.",
        "Fewer than were asked for: `rayzero status` says which are missing.",
    )  # fmt: skip
    yield Figure(
        "warnings", "sentences", "Watched figures past their warning limit.",
        "Any: each names its figure and the limit.",
    )  # fmt: skip


def _evaluations() -> Iterator[Figure]:
    yield Figure("update", "count", "The policy's version that was to be evaluated.")
    yield Figure("oldest_version", "version", "Of the tokens that were sampled; differs from newest only with `mix`.")
    yield Figure("newest_version", "version", "Of the tokens that were sampled.")
    yield Figure(
        "accuracy", "share", "Held-out completions that count as accurate, as sampled: the mean over prompts of each "
        "one's share; completions without a verdict are left out.",
        "It falls while `reward_mean` of the training rises.",
    )  # fmt: skip
    yield Figure(
        "standard_error", "share", "Of the accuracy, over prompts: completions of one prompt are not independent."
    )
    yield Figure(
        "greedy_accuracy", "share", "The same prompts at temperature 0, before and after a run (`evaluation.greedy`).",
        "It stands still while `accuracy` rises: the policy only becomes sure of what it could do already.",
    )  # fmt: skip
    yield Figure("greedy_standard_error", "share", "Of the greedy accuracy, over prompts.")
    yield Figure(
        "pass_at_k", "share",
        "Prompts with a right one among their `num_completions` answers, where they have several (pass@k).",
        "It falls while `accuracy` rises: the policy forgets ways that led to right answers.",
    )  # fmt: skip
    yield Figure("pass_at_k_standard_error", "share", "Of it, over prompts.")
    yield Figure("num_completions", "completions", "k: answers a prompt, where they are several.")
    yield Figure("reward_mean", "reward", "Mean reward of the held-out completions.")
    yield Figure("completion_tokens_mean", "tokens", "Mean length of a held-out completion.")
    yield Figure("truncated_share", "share", "Held-out completions that ran out of tokens.")
    yield Figure(
        "num_errors", "completions", "Held-out completions without a verdict.",
        "More than a few in a hundred: `rayzero samples RUN --kind evaluation --status error` shows their reasons.",
    )  # fmt: skip
    yield Figure("num_prompts", "prompts", "Held-out prompts that were asked.")
    yield Figure(
        "evaluation_s", "seconds", "The evaluation, the greedy one too: from its first request to its last verdict."
    )
    yield Figure("time_s", "Unix time", "When the evaluation was done.")


UPDATE_FIGURES: tuple[Figure, ...] = (*_batch(), *_episodes(), *_objective(), *_mismatch(), *_times(), *_flow())
"""A row of metrics.jsonl, in the order in which the reference lists them."""

EVALUATION_FIGURES: tuple[Figure, ...] = tuple(_evaluations())
"""A row of evaluations.jsonl."""


def undeclared(names: Iterable[str], figures: Iterable[Figure]) -> list[str]:
    """Which names of a row the catalogue lacks."""
    known = {figure.name for figure in figures}
    prefixes = tuple(name for name in known if name.endswith("/"))
    return sorted(name for name in names if name not in known and not name.startswith(prefixes))


def table(figures: Iterable[Figure]) -> str:
    """The catalogue as a Markdown table."""
    rows = [
        f"| `{figure.name}{'<name>' if figure.name.endswith('/') else ''}` | {figure.unit} | {figure.meaning} "
        f"| {figure.worry} |"
        for figure in figures
    ]
    return "\n".join(["| figure | unit | what it is | when to worry |", "|---|---|---|---|", *rows]) + "\n"
