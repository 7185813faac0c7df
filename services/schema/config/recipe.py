"""The recipe: one YAML a run."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from rayzero.services.schema.config.answer_fit import check_answers_fit
from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.cluster import ClusterSettings
from rayzero.services.schema.config.data import DataSettings
from rayzero.services.schema.config.environment import AnyEnvironment, OpenEnvEnvironment, PythonEnvironment
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.config.model import ModelSettings
from rayzero.services.schema.config.observe import ObserveSettings
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.config.training import (
    CheckpointSettings,
    ColdStartSettings,
    DeadlineSettings,
    EvaluationSettings,
    TrainingSettings,
)
from rayzero.services.schema.messages import Sampling

EVALUATION_SEEDS = 2**31
"""Above every training group's seed, so that no held-out completion shares its random numbers with a training one."""


class Recipe(Section):
    """Everything that decides a run. Saved, resolved, as `recipe.yaml` in the run directory."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Names the run directory and the run in every metric: letters, digits, `.`, `_`, `-`."""
    description: str = ""
    """What the run shows, in a sentence; printed at the start."""
    seed: int = Field(default=0, ge=0)
    """Seeds data order, sampling and everything else that is random."""
    model: ModelSettings
    """The policy."""
    data: DataSettings
    """Prompts to train on and prompts held out."""
    rollout: RolloutSettings = RolloutSettings()
    """Rollout workers: engines and sampling."""
    reward: RewardSettings
    """Reward workers and what they reward."""
    environment: AnyEnvironment | None = None
    """What the model acts in, turn by turn. Empty: it answers each prompt with one completion."""
    learner: LearnerSettings = LearnerSettings()
    """Loss, optimizer, reference policy, watched limits."""
    cold_start: ColdStartSettings | None = None
    """Supervised start before the loop, for a model that cannot do the task at all."""
    training: TrainingSettings
    """Updates, groups, staleness."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Held-out accuracy."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Saving."""
    deadlines: DeadlineSettings = DeadlineSettings()
    """Longest waits."""
    observe: ObserveSettings = ObserveSettings()
    """Control API, live page, metrics, experiment trackers."""
    cluster: ClusterSettings = ClusterSettings()
    """Ray."""

    @model_validator(mode="after")
    def _training_fits(self) -> Recipe:
        training = self.training
        if training.num_updates * training.groups_per_update * training.group_size >= EVALUATION_SEEDS:
            raise ValueError("training: more than 2^31 completions, each of which needs a seed of its own")
        if training.stop_at_accuracy is not None and not self.evaluates:
            raise ValueError(
                "training.stop_at_accuracy is reached by held-out prompts, and evaluation.num_prompts is 0: raise it"
            )
        if training.skip_uniform_groups and self.learner.advantage == "none":
            raise ValueError(
                "training.skip_uniform_groups drops groups whose rewards are equal, and with learner.advantage: none "
                "rewards teach nothing and all groups do: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        longest = self.data.max_prompt_tokens
        if longest is not None and longest >= self.rollout.max_model_tokens:
            raise ValueError(
                f"data.max_prompt_tokens ({longest}) must leave room for a completion in rollout.max_model_tokens "
                f"({self.rollout.max_model_tokens})"
            )
        for source in sorted((*self.data.train, *self.data.held_out), key=lambda source: source.name):
            if source.names_by_row:
                continue
            rubric = self.reward.rubric_for(source.name)
            if rubric is None:
                names = " or under ".join(dict.fromkeys((repr(source.name), "'default'")))
                raise ValueError(f"reward.rubrics: data source {source.name!r} has no rubric: add one under {names}")
            check_answers_fit(source, rubric)
        if self.cluster.learner_gpus > 1 and self.learner.compute.offload_optimizer:
            raise ValueError("learner.compute.offload_optimizer is for one learner GPU: leave it out with learner_gpus")
        if self.cluster.shares_gpu and self.rollout.device != "cuda":
            raise ValueError("cluster.colocate is for a GPU: set rollout.device: cuda, or leave colocate out")
        engine_gpus = self.rollout.num_workers * self.rollout.tensor_parallel_size
        if self.cluster.shares_gpu and engine_gpus != self.cluster.learner_gpus:
            raise ValueError(
                "cluster.colocate puts engines on the learner's GPUs, all of them: rollout.num_workers times "
                f"rollout.tensor_parallel_size is {engine_gpus}, and cluster.learner_gpus is "
                f"{self.cluster.learner_gpus}: make them equal"
            )
        several = self.cluster.shares_gpu and self.cluster.learner_gpus > 1
        if several and self.rollout.max_workers > self.rollout.num_workers:
            raise ValueError(
                "cluster.colocate with several GPUs has no GPU for an engine more: set rollout.max_workers to "
                f"rollout.num_workers ({self.rollout.num_workers})"
            )
        if self.cluster.takes_turns and not self.training.is_synchronous:
            raise ValueError(
                "cluster.colocate: sleep takes turns, and training.max_staleness above 0 wants both at once: set it to "
                "0, or colocate: shared"
            )
        overlong, limit = getattr(self.learner.loss, "overlong_tokens", 0), self.rollout.sampling.max_tokens
        if overlong > limit:
            raise ValueError(
                f"learner.loss.overlong_tokens ({overlong}) is more than rollout.sampling.max_tokens "
                f"({limit}): every completion would be punished; give it fewer"
            )
        if self.learner.minibatches > self.training.groups_per_update:
            raise ValueError(
                f"learner.minibatches ({self.learner.minibatches}) deals whole groups, and "
                f"training.groups_per_update is {self.training.groups_per_update}: lower it"
            )
        if self.reward.deadline_s >= self.deadlines.score_s:
            raise ValueError(
                f"deadlines.score_s ({self.deadlines.score_s:g}) must be longer than reward.deadline_s "
                f"({self.reward.deadline_s:g}): else a worker that is about to answer is given up as dead"
            )
        return self

    @model_validator(mode="after")
    def _delta_has_a_start(self) -> Recipe:
        without = {
            "cluster.learner_gpus above 1": self.cluster.learner_gpus > 1,
            "cluster.colocate": self.cluster.shares_gpu,
            "learner.lora": self.learner.lora is not None,
            "rollout.weight_loading: streamed": self.rollout.weight_loading == "streamed",
            "rollout.tensor_parallel_size above 1": self.rollout.loads_in_pause,
        }
        if self.cluster.delta_sync and (found := [what for what, is_so in without.items() if is_so]):
            raise ValueError(
                "cluster.delta_sync needs a learner and engines that each hold a whole version beside the weights, "
                f"and with {found[0]} they do not: leave cluster.delta_sync out"
            )
        return self

    @model_validator(mode="after")
    def _episodes_fit(self) -> Recipe:
        needed = [
            f"reward.rubrics.{source}.{name}"
            for source, rubric in self.reward.rubrics.items()
            for name, component in rubric.items()
            if component.kind == "environment"
        ]
        credit = self.learner.credit.name
        if credit != "episode" and not isinstance(self.environment, PythonEnvironment | OpenEnvEnvironment):
            raise ValueError(
                f"learner.credit: {credit} needs rewards of single turns, which environments of kind python and "
                "openenv can give: choose one, or learner.credit: {name: episode}"
            )
        if self.environment is None:
            if needed:
                raise ValueError(f"{needed[0]} asks an environment, and there is none: add one under environment")
            return self
        if credit != "episode" and getattr(self.environment, "malformed", "") == "mask":
            raise ValueError(
                f"environment.malformed: mask leaves turns out, and learner.credit: {credit} gives each its share: "
                "choose observe or end, or learner.credit: {name: episode}"
            )
        if self.rollout.prompt_template == "r1_zero":
            raise ValueError(
                "rollout.prompt_template: r1_zero renders one question, and environment has a conversation: choose "
                "chat or text"
            )
        longest, window = self.environment.limits.turn_tokens, self.rollout.max_model_tokens
        if longest is not None and longest >= window:
            raise ValueError(
                f"environment.limits.turn_tokens ({longest}) leaves no room for a prompt within "
                f"rollout.max_model_tokens ({window})"
            )
        if self.environment.limits.episode_s >= self.deadlines.group_s:
            raise ValueError(
                f"deadlines.group_s ({self.deadlines.group_s:g}) must be longer than environment.limits.episode_s "
                f"({self.environment.limits.episode_s:g}): else an engine that is about to answer is given up as dead"
            )
        return self

    @property
    def evaluation_sampling(self) -> Sampling:
        """How held-out prompts are sampled: the same seeds at every evaluation."""
        return Sampling(
            num_completions=self.evaluation.num_completions,
            max_tokens=self.rollout.sampling.max_tokens,
            temperature=self.evaluation.temperature,
            top_p=self.evaluation.top_p,
            top_k=self.evaluation.top_k,
            min_p=self.evaluation.min_p,
            stop=self.rollout.sampling.stop,
            seed=(self.seed << 32) + EVALUATION_SEEDS,
        )

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out prompts."""
        return self.evaluation.num_prompts > 0

    @property
    def max_completion_tokens(self) -> int:
        """The most that one rollout samples; an episode, in all its turns."""
        turn = self.rollout.sampling.max_tokens
        if self.environment is None:
            return turn
        limits = self.environment.limits
        turns = limits.turns * (limits.turn_tokens or turn)
        return min(turns, limits.episode_tokens or turns, self.rollout.max_model_tokens)

    def evaluates_at(self, version: int) -> bool:
        """Whether the held-out prompts are due at this version: at the first, the last, and every so many between."""
        every = self.evaluation.every_updates
        if not self.evaluates:
            return False
        return version == 0 or version >= self.training.num_updates or bool(every and version % every == 0)

    def greedy_at(self, version: int, accuracy: float = math.nan) -> bool:
        """Whether an evaluation of this version, that showed this accuracy as sampled, also takes the most likely
        answers."""
        ends = version == 0 or self.training.is_over(version, {version: accuracy})
        return self.evaluation.greedy == "always" or (self.evaluation.greedy == "ends" and ends)

    def saves_at(self, version: int) -> bool:
        """Whether a checkpoint is due at this version, besides the last."""
        every = self.checkpoint.every_updates
        return bool(every and version % every == 0)

    def training_sampling(self, group_id: int) -> Sampling:
        """How a training group is sampled: seeds distinct for every completion of the run, and the same again when a
        group is sampled anew after a failure."""
        return Sampling(
            num_completions=self.training.group_size,
            max_tokens=self.rollout.sampling.max_tokens,
            temperature=self.rollout.sampling.temperature,
            stop=self.rollout.sampling.stop,
            seed=(self.seed << 32) + group_id * self.training.group_size,
        )
