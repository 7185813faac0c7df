"""The recipe: one YAML a run."""

from __future__ import annotations

from pydantic import Field, model_validator

from services.schema.config.base import Section
from services.schema.config.cluster import ClusterSettings
from services.schema.config.data import DataSettings
from services.schema.config.learner import LearnerSettings
from services.schema.config.model import ModelSettings
from services.schema.config.reward import RewardSettings
from services.schema.config.rollout import RolloutSettings
from services.schema.config.training import CheckpointSettings, DeadlineSettings, EvaluationSettings, TrainingSettings


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
    learner: LearnerSettings = LearnerSettings()
    """Loss, optimizer, reference policy, watched limits."""
    training: TrainingSettings
    """Updates, groups, staleness."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Held-out accuracy."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Saving."""
    deadlines: DeadlineSettings = DeadlineSettings()
    """Longest waits."""
    cluster: ClusterSettings = ClusterSettings()
    """Ray."""
