"""REINFORCE++: token-level clipping with an advantage normalised over the batch."""

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
    mean_of_tokens,
    token_surrogate,
)


class ReinforcePlusPlusLoss(Loss):
    """REINFORCE++: token-level clipping, batch-normalised advantage (https://arxiv.org/abs/2501.03262)."""

    name: Literal["reinforce++"] = "reinforce++"
    published_advantage: ClassVar[AdvantageName] = "batch_normalised"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the value is cut at so many times the advantage, however large the
    ratio (https://arxiv.org/abs/1912.09729; 3 there). Empty: off, as published."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-min(rho A, clip(rho) A) a token (https://arxiv.org/abs/2501.03262), discount 1.

        Simplified: the reward is given once a completion; the paper's KL reward a token is `kl.place: reward`, summed.
        """
        return token_surrogate(tokens, self)

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over all tokens of the batch."""
        return mean_of_tokens(shape)
