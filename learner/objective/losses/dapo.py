"""DAPO: every token of the batch weighs the same, and the clip leaves more room upwards."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
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


class DapoLoss(Loss):
    """DAPO: token mean over the batch, clip-higher, soft overlong punishment (https://arxiv.org/abs/2503.14476).

    Its dynamic sampling is `training.skip_uniform_groups`.
    """

    name: Literal["dapo"] = "dapo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.28, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the value is cut at so many times the advantage, however large the
    ratio (https://arxiv.org/abs/1912.09729; 3 there). Empty: off, as published."""
    overlong_tokens: int = Field(default=0, ge=0)
    """Within the last so many tokens before the rollout's max_tokens the reward falls linearly by up to 1. 0: off."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-min(rho A, clip(rho, 1 - low, 1 + high) A) a token (https://arxiv.org/abs/2503.14476 eq. 8 and 10)."""
        return token_surrogate(tokens, self)

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over all tokens of the batch; the paper's is over all tokens of a group, then over groups."""
        return mean_of_tokens(shape)

    def reward_shaping(self, lengths: NDArray[np.int64], max_tokens: int) -> NDArray[np.float64]:
        """[S] what is added to each reward: 0 up to max - overlong tokens, then linearly down to -1 (eq. 13)."""
        if self.overlong_tokens == 0:
            return np.zeros(len(lengths))
        return np.clip((max_tokens - self.overlong_tokens - lengths) / self.overlong_tokens, -1.0, 0.0)
