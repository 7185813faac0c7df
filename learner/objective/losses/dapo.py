"""DAPO: every token of the batch weighs the same, and the clip leaves more room upwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, mean_of_tokens, token_surrogate
from rayzero.services.schema.config.loss import DapoLoss


def token_losses(tokens: Tokens, settings: DapoLoss) -> TokenLosses:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) a token (https://arxiv.org/abs/2503.14476 eq. 8 and 10).

    The denominator is all tokens of the batch; the paper's is all tokens of a group, then a mean over groups.
    """
    return token_surrogate(tokens, settings)


def overlong_penalty(lengths: NDArray[np.int64], max_tokens: int, settings: DapoLoss) -> NDArray[np.float64]:
    """[S] what is added to each reward: 0 up to max - overlong tokens, then linearly down to -1 (eq. 13)."""
    overlong = settings.overlong_tokens
    if overlong == 0:
        return np.zeros(len(lengths))
    return np.clip((max_tokens - overlong - lengths) / overlong, -1.0, 0.0)


LOSS = Loss(token_losses, mean_of_tokens, overlong_penalty)
