"""DAPO: every token of the batch weighs the same, and the clip leaves more room upwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, clipped_ratio, mean_of_tokens
from rayzero.services.schema.config.loss import DapoLoss


def token_losses(tokens: Tokens, settings: DapoLoss) -> TokenLosses:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) a token (https://arxiv.org/abs/2503.14476 eq. 8 and 10).

    The denominator is all tokens of the batch; the paper's is all tokens of a group, then a mean over groups.
    """
    values, clipped = clipped_ratio(
        tokens.policy - tokens.old, tokens.token_advantages, settings.clip_low, settings.clip_high
    )
    return TokenLosses(values=values, clipped=clipped)


def overlong_penalty(lengths: NDArray[np.int64], max_tokens: int, overlong_tokens: int) -> NDArray[np.float64]:
    """[S] what is added to each reward: 0 up to max - overlong tokens, then linearly down to -1 (eq. 13)."""
    if overlong_tokens == 0:
        return np.zeros(len(lengths))
    return np.clip((max_tokens - overlong_tokens - lengths) / overlong_tokens, -1.0, 0.0)


LOSS = Loss(token_losses, mean_of_tokens)
