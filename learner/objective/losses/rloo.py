"""RLOO: REINFORCE on whole completions, with the rest of the group as the baseline."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import (
    BatchShape,
    Loss,
    TokenLosses,
    Tokens,
    TokenWeights,
    sequence_surrogate,
)


class RlooLoss(Loss):
    """RLOO: REINFORCE on whole completions (https://arxiv.org/abs/2402.14740), ratio-clipped for several steps."""

    name: Literal["rloo"] = "rloo"
    published_advantage: ClassVar[AdvantageName] = "leave_one_out"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The sequence ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The sequence ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the value is cut at so many times the advantage, however large the
    ratio (https://arxiv.org/abs/1912.09729; 3 there). Empty: off, as published."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-min(rho A, clip(rho) A), rho = prod_t pi_theta / pi_old of the completion.

        On the first step of a batch rho is 1 and the gradient is A * grad log pi(completion), the RLOO
        estimator of https://arxiv.org/abs/2402.14740; the clip, which the paper has not, only acts on later steps.
        """
        return sequence_surrogate(tokens.per_sample_sum(tokens.log_ratios), tokens, self)

    @property
    def has_one_ratio(self) -> bool:
        """The product, or mean, over its tokens."""
        return True

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over completions, each worth its value once: 1 / (S * T)."""
        return np.asarray(1.0 / (len(shape.lengths) * np.maximum(shape.lengths, 1)), dtype=np.float64)
