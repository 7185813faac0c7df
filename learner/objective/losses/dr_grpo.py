"""Dr. GRPO: GRPO without the length and std normalisation that favours long wrong answers."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import BatchShape, Loss, TokenLosses, Tokens, TokenWeights, token_surrogate


class DrGrpoLoss(Loss):
    """Dr. GRPO: no length and no std normalisation (https://arxiv.org/abs/2503.20783)."""

    name: Literal["dr_grpo"] = "dr_grpo"
    published_advantage: ClassVar[AdvantageName] = "mean_centred"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the value is cut at so many times the advantage, however large the
    ratio (https://arxiv.org/abs/1912.09729; 3 there). Empty: off, as published."""
    constant_tokens: int | None = Field(default=None, ge=1)
    """Every completion's sum is divided by this. Empty: the rollout's max_tokens."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-min(rho A, clip(rho) A) a token (https://arxiv.org/abs/2503.20783, section 3.2)."""
        return token_surrogate(tokens, self)

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Sum over a completion's tokens over a constant, mean over group, then over groups: 1 / (groups * G * C)."""
        constant = self.constant_tokens or shape.max_completion_tokens
        return np.asarray(1.0 / (shape.num_groups * shape.group_sizes * constant), dtype=np.float64)
