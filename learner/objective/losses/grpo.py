"""GRPO, as DeepSeek published it: the default."""

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
    token_surrogate,
)


class GrpoLoss(Loss):
    """GRPO (https://arxiv.org/abs/2402.03300 eq. 3; https://arxiv.org/abs/2501.12948 eq. 1)."""

    name: Literal["grpo"] = "grpo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the value is cut at so many times the advantage, however large the
    ratio (https://arxiv.org/abs/1912.09729; 3 there). Empty: off, as published."""
    ratio: Literal["token", "sequence"] = "token"
    """token: one ratio a token, averaged within each completion (DeepSeekMath). sequence: one a completion, the product
    over its tokens (as DeepSeek-R1's paper prints it)."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-min(rho A, clip(rho) A), rho a token (https://arxiv.org/abs/2402.03300 eq. 3) or a completion.

        `ratio: sequence` has rho = prod_t pi_theta / pi_old, one a completion (https://arxiv.org/abs/2501.12948 eq. 1);
        every token carries its completion's value, so that the mean over the completion is that value.
        """
        if self.ratio == "token":
            return token_surrogate(tokens, self)
        return sequence_surrogate(tokens.per_sample_sum(tokens.log_ratios), tokens, self)

    @property
    def has_one_ratio(self) -> bool:
        """The product, or mean, over its tokens."""
        return self.ratio == "sequence"

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over completions."""
        return mean_of_completions(shape)
