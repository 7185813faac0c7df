"""The losses by name, each with the settings its paper has. What they compute is in learner/objective/losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rayzero.services.schema.config.base import Section


class GrpoLoss(Section):
    """GRPO (https://arxiv.org/abs/2402.03300 eq. 3; https://arxiv.org/abs/2501.12948 eq. 1)."""

    name: Literal["grpo"] = "grpo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    ratio: Literal["token", "sequence"] = "token"
    """token: one ratio a token, averaged within each completion (DeepSeekMath). sequence: one a completion, the product
    over its tokens (as DeepSeek-R1's paper prints it)."""


class DrGrpoLoss(Section):
    """Dr. GRPO: no length and no std normalisation (https://arxiv.org/abs/2503.20783)."""

    name: Literal["dr_grpo"] = "dr_grpo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    constant_tokens: int | None = Field(default=None, ge=1)
    """Every completion's sum is divided by this. Empty: the rollout's max_tokens."""


class DapoLoss(Section):
    """DAPO: token mean over the batch, clip-higher, soft overlong punishment (https://arxiv.org/abs/2503.14476).

    Its dynamic sampling is `training.skip_uniform_groups`.
    """

    name: Literal["dapo"] = "dapo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.28, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    overlong_tokens: int = Field(default=0, ge=0)
    """Within the last so many tokens before the rollout's max_tokens the reward falls linearly by up to 1. 0: off."""


class GspoLoss(Section):
    """GSPO: length-normalised sequence ratio, clipped a completion (https://arxiv.org/abs/2507.18071 eq. 5-7)."""

    name: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=4e-4, gt=0)
    """The ratio is clipped above at 1 + clip_high."""


class CispoLoss(Section):
    """CISPO: REINFORCE with a clipped, detached importance weight (https://arxiv.org/abs/2506.13585 eq. 4-5)."""

    name: Literal["cispo"] = "cispo"
    clip_low: float = Field(default=1.0, gt=0, le=1)
    """The weight is clipped below at 1 - clip_low: 1 means no lower clip, as published."""
    clip_high: float = Field(default=4.0, gt=0)
    """The weight is clipped above at 1 + clip_high."""


class RlooLoss(Section):
    """RLOO: REINFORCE on whole completions (https://arxiv.org/abs/2402.14740), ratio-clipped for several steps."""

    name: Literal["rloo"] = "rloo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The sequence ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The sequence ratio is clipped above at 1 + clip_high."""


class ReinforcePlusPlusLoss(Section):
    """REINFORCE++: token-level clipping, batch-normalised advantage (https://arxiv.org/abs/2501.03262)."""

    name: Literal["reinforce++"] = "reinforce++"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""


LossSettings = Annotated[
    GrpoLoss | DrGrpoLoss | DapoLoss | GspoLoss | CispoLoss | RlooLoss | ReinforcePlusPlusLoss,
    Field(discriminator="name"),
]
