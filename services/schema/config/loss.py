"""The losses by name, each with the settings and the advantage that its paper has.

What they compute is in learner/objective/losses; the settings are here because a recipe is checked without torch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rayzero.services.schema.config.base import Section

AdvantageName = Literal[
    "std_normalised", "mean_centred", "leave_one_out", "batch_normalised", "centred_batch_normalised", "none"
]


class GrpoLoss(Section):
    """GRPO (https://arxiv.org/abs/2402.03300 eq. 3; https://arxiv.org/abs/2501.12948 eq. 1)."""

    name: Literal["grpo"] = "grpo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
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
    published_advantage: ClassVar[AdvantageName] = "mean_centred"
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
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.28, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    overlong_tokens: int = Field(default=0, ge=0)
    """Within the last so many tokens before the rollout's max_tokens the reward falls linearly by up to 1. 0: off."""


class GspoLoss(Section):
    """GSPO: length-normalised sequence ratio, clipped a completion (https://arxiv.org/abs/2507.18071 eq. 5-7)."""

    name: Literal["gspo"] = "gspo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=3e-4, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=4e-4, gt=0)
    """The ratio is clipped above at 1 + clip_high."""


class CispoLoss(Section):
    """CISPO: REINFORCE with a clipped, detached importance weight (https://arxiv.org/abs/2506.13585 eq. 4-5)."""

    name: Literal["cispo"] = "cispo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=1.0, gt=0, le=1)
    """The weight is clipped below at 1 - clip_low: 1 means no lower clip, as published."""
    clip_high: float = Field(default=4.0, gt=0)
    """The weight is clipped above at 1 + clip_high."""


class RlooLoss(Section):
    """RLOO: REINFORCE on whole completions (https://arxiv.org/abs/2402.14740), ratio-clipped for several steps."""

    name: Literal["rloo"] = "rloo"
    published_advantage: ClassVar[AdvantageName] = "leave_one_out"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The sequence ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The sequence ratio is clipped above at 1 + clip_high."""


class ReinforcePlusPlusLoss(Section):
    """REINFORCE++: token-level clipping, batch-normalised advantage (https://arxiv.org/abs/2501.03262)."""

    name: Literal["reinforce++"] = "reinforce++"
    published_advantage: ClassVar[AdvantageName] = "batch_normalised"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""


LossSettings = Annotated[
    GrpoLoss | DrGrpoLoss | DapoLoss | GspoLoss | CispoLoss | RlooLoss | ReinforcePlusPlusLoss,
    Field(discriminator="name"),
]
