"""The pipeline recipe: stages that name what they start from, run as one job. The graph is in services/pipeline."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.config.training import SupervisedSettings

BASE = "base"
REFERENCE = "stage:"
"""A text value that begins so stands for another stage's artefact: `path: stage:rejection` is its dataset."""

StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,40}$")]


class StageSettings(Section):
    """What all stages have."""

    description: str = ""
    """What the stage is for, in a sentence."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Keys of a recipe, laid over the pipeline's `recipe` for this stage: mappings are merged, `null` removes a key,
    anything else replaces."""


class DemonstrationStage(StageSettings, SupervisedSettings):
    """What stages that learn from demonstrations have."""

    data: tuple[DataSource, ...] = Field(min_length=1)
    """Demonstrations; several sources take turns by weight. `path: stage:NAME` is another stage's dataset."""
    checkpoint_every_updates: int = Field(default=100, ge=1)
    """Updates that a kill can cost."""


class SftStage(DemonstrationStage):
    """Supervised fine-tuning; writes a model."""

    kind: Literal["sft"] = "sft"
    model: str = BASE
    """What is trained: a name of `models`, or a stage that writes a model."""


class GrpoStage(StageSettings):
    """Reinforcement learning, the loop of `rayzero train`; writes a model. Its recipe holds data, rewards, training."""

    kind: Literal["grpo"] = "grpo"
    model: str = BASE
    """What is trained: a name of `models`, or a stage that writes a model."""


class CompletionFilter(Section):
    """Which completions of a model are good enough to learn from (DeepSeek-R1, section 2.3.3)."""

    min_components: dict[str, float] = Field(default_factory=dict)
    """Lowest score, by the rubric's component names, e.g. `{language: 0.99, format: 1}`. Besides, the rollout must be
    accurate."""
    max_paragraph_chars: int | None = Field(default=None, ge=1)
    """A completion with a longer paragraph is left out. Empty: any length."""
    allow_code_blocks: bool = False
    """Keep completions with fenced code blocks."""
    max_per_prompt: int = Field(default=1, ge=1)
    """Best of k: keep so many of a prompt's good completions, those with the highest reward."""
    ties: Literal["sampled", "shortest"] = "sampled"
    """Which of equal rewards: as they were sampled, or the shortest, which leans the dataset towards short thoughts."""


class RejectionSampleStage(StageSettings):
    """k completions a prompt, verified and filtered; writes a dataset. Its recipe holds the prompts and the rewards."""

    kind: Literal["rejection_sample"] = "rejection_sample"
    model: str
    """What is sampled: a name of `models`, or a stage that writes a model."""
    num_prompts: int = Field(ge=1)
    """Training prompts to sample, in the recipe's order of the first epochs."""
    num_completions: int = Field(default=8, ge=1)
    """k."""
    prompts_per_shard: int = Field(default=64, ge=1)
    """What is written at a time: a kill costs at most one shard."""
    keep: CompletionFilter = CompletionFilter()
    """What is kept."""
    mix: tuple[DataSource, ...] = ()
    """Demonstrations to mix in, for what cannot be verified; they need a column `completion`."""
    mix_share: float = Field(default=0.25, gt=0.0, lt=1.0)
    """Their share of the dataset (DeepSeek-R1: 200k of 800k rows), where there are any."""


class RewardModelStage(StageSettings):
    """A sequence classifier from labelled pairs (https://arxiv.org/abs/2203.02155); writes a reward model."""

    kind: Literal["reward_model"] = "reward_model"
    model: str = BASE
    """Whose body it starts from: a name of `models`, or a stage that writes a model. The head is new."""
    pairs: DataSource
    """Rows with `prompt`, `chosen` and `rejected`, as texts."""
    held_out_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the prompts whose pairs are kept for the accuracy that is reported."""
    min_accuracy: float = Field(default=0.6, ge=0.0, le=1.0)
    """A reward model that ranks fewer held-out pairs rightly ends the pipeline here."""
    num_updates: int = Field(ge=1)
    """Optimizer steps."""
    pairs_per_update: int = Field(default=32, ge=1)
    """Batch size."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Of AdamW, with a linear decay to zero."""
    checkpoint_every_updates: int = Field(default=100, ge=1)
    """Updates that a kill can cost."""


class DistillStage(DemonstrationStage):
    """SFT of a smaller model, with its own tokenizer, on a teacher's rejection-sampled dataset; writes a model."""

    kind: Literal["distill"] = "distill"
    model: str
    """The student: a name of `models`, or a stage that writes a model."""


class OnPolicyDistillStage(StageSettings):
    """The student's own rollouts, the teacher's log-probabilities, reverse KL (https://arxiv.org/abs/2306.13649).

    The loop of `rayzero train` without any advantage: its recipe holds data, rewards (only watched) and training.
    """

    kind: Literal["on_policy_distill"] = "on_policy_distill"
    model: str
    """The student: a name of `models`, or a stage that writes a model."""
    teacher: str
    """A name of `models`, or a stage that writes a model, with the student's tokenizer."""


class Bounds(Section):
    """Between what a figure is expected."""

    min: float | None = None
    """Not less. Empty: no bound."""
    max: float | None = None
    """Not more. Empty: no bound."""


class EvalStage(StageSettings):
    """pass@1, pass@k and majority@k by source, with confidence intervals.

    Its recipe holds held-out prompts and rewards; k is `evaluation.num_completions`.
    """

    kind: Literal["eval"] = "eval"
    models: tuple[str, ...] = Field(min_length=1)
    """What is measured, in the report's order: names of `models`, or stages that write a model."""
    expect: dict[str, dict[str, Bounds]] = Field(default_factory=dict)
    """By model, by figure (`accuracy`, `greedy`, `pass@16`, …, as the report calls them): where it must lie for the
    pipeline to go on, e.g. `{pretrain: {greedy: {max: 0.15}}}`. Of all sources together."""

    @model_validator(mode="after")
    def _expects_what_it_measures(self) -> EvalStage:
        for model in self.expect.keys() - set(self.models):
            raise ValueError(f"expect.{model}: it is none of `models` ({', '.join(self.models)})")
        return self


Stage = Annotated[
    SftStage | GrpoStage | RejectionSampleStage | RewardModelStage | DistillStage | OnPolicyDistillStage | EvalStage,
    Field(discriminator="kind"),
]

MODEL, DATASET, REWARD_MODEL, RESULTS = "model", "dataset", "reward model", "results"
WRITES = {
    "sft": MODEL,
    "grpo": MODEL,
    "rejection_sample": DATASET,
    "reward_model": REWARD_MODEL,
    "distill": MODEL,
    "on_policy_distill": MODEL,
    "eval": RESULTS,
}
"""What each kind of stage leaves for others."""


class Pipeline(Section):
    """Several stages as one job."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Names the run directory."""
    description: str = ""
    """What it shows, in a sentence."""
    seed: int = Field(default=0, ge=0)
    """Of every stage."""
    models: dict[StageName, str] = Field(min_length=1)
    """What stages may start from, by name: directories, hub ids or built-in names. One is called `base`."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What learners and engines compute in; `auto` as `model.dtype` has it, one for all stages: float32 where one of
    them computes on CPUs without bfloat16. It is chosen once, and kept in the run's pipeline.yaml."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Keys of a recipe that all stages share."""
    stages: dict[StageName, Stage] = Field(min_length=1)
    """The stages by name. Each runs once everything that it names is done."""

    @field_validator("models")
    @classmethod
    def _has_base(cls, models: dict[str, str]) -> dict[str, str]:
        if BASE not in models:
            raise ValueError(f"one of them must be called {BASE!r}: what the first stage starts from")
        return models
