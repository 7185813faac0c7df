"""How long the loop runs and how it is paced: updates, staleness, evaluation, checkpoints, deadlines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.config.learner import OptimizerSettings


class TrainingSettings(Section):
    """The loop itself."""

    num_updates: int = Field(ge=1)
    """Optimizer batches until the run ends."""
    stop_at_accuracy: float | None = Field(default=None, gt=0.0, le=1.0)
    """Held-out accuracy at which the run ends as after its last update. The evaluation that reached it was lucky more
    often than not: its accuracy flatters the model. Empty: all updates are made."""
    max_hours: float | None = Field(default=None, gt=0)
    """Longest time of one command, from its start: then the update in hand is finished and saved, and the same command
    goes on. For machines that are lent by the hour. Empty: no limit."""
    groups_per_update: int = Field(ge=1)
    """Prompts a batch."""
    group_size: int = Field(ge=2)
    """G, completions a prompt. At least 2: an advantage is relative to the rest of its group."""
    max_staleness: int = Field(default=0, ge=0, le=64)
    """Versions by which a trained token may be older than the learner. 0 is strict on-policy; 1 and more overlap
    generation with learning."""
    on_stale: Literal["wait", "drop"] = "wait"
    """When a group in flight is about to pass max_staleness: hold the next update back for it (counted as
    `held_batches` in metrics.jsonl), or abort it and drop it as `stale`. Groups in flight for so long are mostly those
    with long completions: `drop` trains on shorter ones than the policy writes (measured in simulation, lognormal
    lengths: by 14 to 41 % of the mean). `length_bias` in metrics.jsonl says by how much; `wait` is without."""
    over_provision: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of a batch that is begun beyond what is needed, against long tails: the learner does not wait for so many
    of the slowest groups. A group that is late for one batch is kept, with all it has, while max_staleness allows a
    later one; when the last batch that may use it is complete without it, it is aborted and dropped as
    `over-provisioned`. Slow groups are mostly long ones: the batches lean towards prompts with short completions, and
    `truncated_share` and `completion_tokens_mean` look better than the policy is. Even 0.1 to
    0.25 can take a fifth to a third off the mean: look at `length_bias`, and at the lengths of the evaluation, which
    leaves nothing out. Needs max_staleness of at least 1."""
    skip_uniform_groups: bool = False
    """Dynamic sampling (DAPO): a group whose rewards are all equal teaches nothing; drop it and sample another prompt
    in its place."""
    max_refills: int = Field(default=64, ge=1)
    """How many batches of groups may be dropped for one update, because their prompts do not fit, they have no
    verdicts, or their rewards are all equal and `skip_uniform_groups` wants others: the run ends, and says which."""
    max_group_attempts: int = Field(default=3, ge=1)
    """How often a group is tried again when workers fail or verdicts are errors before it is dropped."""

    def is_over(self, version: int, accuracies: Mapping[int, float]) -> bool:
        """Whether a run at this version, with these held-out accuracies, is at its end."""
        goal = self.stop_at_accuracy
        return version >= self.num_updates or (goal is not None and max(accuracies.values(), default=0.0) >= goal)

    @property
    def is_synchronous(self) -> bool:
        """Strictly on-policy: generation and learning take turns, and groups are admitted in waves."""
        return self.max_staleness == 0

    @property
    def samples_per_update(self) -> int:
        """Completions in one batch."""
        return self.groups_per_update * self.group_size

    @property
    def num_spare_groups(self) -> int:
        """Groups that are begun beyond those which can be trained on."""
        return math.ceil(self.over_provision * self.groups_per_update)

    @property
    def max_live_groups(self) -> int:
        """Groups that can be under way at a time."""
        return (self.max_staleness + 1) * self.groups_per_update + self.num_spare_groups

    @model_validator(mode="after")
    def _strict_begins_no_more_than_it_needs(self) -> TrainingSettings:
        if self.over_provision > 0 and self.is_synchronous:
            raise ValueError(
                "over_provision needs max_staleness of at least 1: "
                "a synchronous run trains on exactly the groups it begins"
            )
        return self


class SupervisedOptimizerSettings(OptimizerSettings):
    """AdamW of supervised updates. Unless told otherwise the rate falls to a tenth: what is learned last is exact."""

    decay: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the rate from the end of the warm-up to the last supervised update."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """Share of the peak rate at which the decay ends."""


class SupervisedSettings(Section):
    """Supervised updates: loss on the completions' tokens alone."""

    completion_column: str = "completion"
    """Column that holds the demonstrated completion as text; the end-of-sequence token is added."""
    num_updates: int = Field(ge=1)
    """Optimizer steps."""
    demonstrations_per_update: int = Field(default=32, ge=1)
    """Batch size."""
    optimizer: SupervisedOptimizerSettings
    """Of these updates alone: what follows begins with fresh moments."""


class ColdStartSettings(SupervisedSettings):
    """A short supervised start before the first rollout."""

    source: DataSource
    """Where the demonstrations come from: rows with a prompt and, in `completion_column`, what to answer."""


class EvaluationSettings(Section):
    """Held-out accuracy, from the same engines that train."""

    every_updates: int = Field(default=10, ge=0)
    """Evaluate after every so many updates; always before the first and after the last. 0: only those two."""
    num_prompts: int = Field(default=128, ge=0)
    """Held-out prompts, disjoint from the training prompts. 0: none is held out and nothing is evaluated; what a run
    learned, its training rewards alone then say."""
    temperature: float = Field(default=1.0, ge=0.0)
    """1 measures the policy that is trained; 0 its most likely answer."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Only the most likely tokens that together have this probability: as a model is often served, not as it is trained
    (rollout.sampling has no such key). 1: all."""
    top_k: int = Field(default=0, ge=0)
    """Only so many of the most likely tokens. 0: all."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    """Only tokens with at least this share of the most likely one's probability. 0: all."""
    greedy: Literal["ends", "always", "never"] = "ends"
    """When accuracy is measured at temperature 0 besides, one answer a prompt: before the first and after the last
    update, at every evaluation, or not at all. Training sharpens: accuracy at temperature 1 also rises where the most
    likely answer was right from the start, and only the two together tell which it was."""
    num_completions: int = Field(default=1, ge=1)
    """Completions a prompt; accuracy is the mean over all."""
    on_new_weights: Literal["wait", "mix"] = "wait"
    """Where generation and learning overlap (max_staleness ≥ 1), an evaluation runs beside both, its prompts ahead of
    those to train on. When new weights are ready before it is done: `wait` holds them back, so that all of it is
    sampled from the version it is reported for; engines and learner go on meanwhile as far as max_staleness lets them
    (`hold_s` in metrics.jsonl). `mix` does not; evaluations.jsonl says from which versions the tokens are. Synchronous
    runs give an evaluation the engines to itself."""


class CheckpointSettings(Section):
    """What survives a kill -9."""

    every_updates: int = Field(default=20, ge=0)
    """Save after every so many updates; always after the last. 0: only then."""
    keep_last: int = Field(default=2, ge=1)
    """How many to keep. The best by held-out accuracy is kept besides: the prompts that chose it flatter it, so measure
    it on others."""


class DeadlineSettings(Section):
    """No wait is without end. When one runs out, the error says who waited for whom, since when."""

    actor_start_s: float = Field(default=300.0, gt=0)
    """An actor to be placed, loaded and ready."""
    group_s: float = Field(default=600.0, gt=0)
    """All completions of one group, from request to last token."""
    score_s: float = Field(default=120.0, gt=0)
    """All verdicts of one group, sandboxed programs included."""
    update_s: float = Field(default=1800.0, gt=0)
    """One update of the learner."""
    sync_s: float = Field(default=300.0, gt=0)
    """One broadcast of the weights, until every engine has acknowledged it."""
    checkpoint_s: float = Field(default=600.0, gt=0)
    """One checkpoint to be written and verified."""
    stall_s: float = Field(default=1800.0, gt=0)
    """No group finished and no update made for so long: the run stops with a stall report."""

    @model_validator(mode="after")
    def _stall_is_longest(self) -> DeadlineSettings:
        longest = max(self.group_s, self.update_s, self.sync_s, self.score_s)
        if self.stall_s < longest:
            raise ValueError(f"stall_s ({self.stall_s:g}) must not be shorter than the longest step ({longest:g} s)")
        return self
