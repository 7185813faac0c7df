"""GSPO: one length-normalised ratio a completion, clipped as a whole."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import (
    BatchShape,
    Loss,
    TokenLosses,
    Tokens,
    TokenWeights,
    mean_of_completions,
    sequence_surrogate,
)


class GspoLoss(Loss):
    """GSPO: length-normalised sequence ratio, clipped a completion (https://arxiv.org/abs/2507.18071 eq. 5-7)."""

    name: Literal["gspo"] = "gspo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=3e-4, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=4e-4, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the value is cut at so many times the advantage, however large the
    ratio (https://arxiv.org/abs/1912.09729; 3 there). Empty: off, as published."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-min(s A, clip(s) A), s = (prod_t pi_theta / pi_old)^(1/T) (https://arxiv.org/abs/2507.18071 eq. 5 and 7)."""
        return sequence_surrogate(tokens.per_sample_mean(tokens.log_ratios), tokens, self)

    @property
    def has_one_ratio(self) -> bool:
        """The product, or mean, over its tokens."""
        return True

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over completions."""
        return mean_of_completions(shape)
