"""Dr. GRPO: GRPO without the length and std normalisation that favours long wrong answers."""

from __future__ import annotations

import numpy as np

from rayzero.learner.objective.losses.base import BatchShape, Loss, TokenLosses, Tokens, TokenWeights, token_surrogate
from rayzero.services.schema.config.loss import DrGrpoLoss


def token_losses(tokens: Tokens, settings: DrGrpoLoss) -> TokenLosses:
    """-min(rho A, clip(rho) A) a token (https://arxiv.org/abs/2503.20783, figure 1)."""
    return token_surrogate(tokens, settings)


def token_weights(shape: BatchShape, settings: DrGrpoLoss) -> TokenWeights:
    """Sum over a completion's tokens over a constant, mean over the group, then over groups: 1 / (groups * G * C)."""
    constant = settings.constant_tokens or shape.max_completion_tokens
    return np.asarray(1.0 / (shape.num_groups * shape.group_sizes * constant), dtype=np.float64)


LOSS = Loss(token_losses, token_weights)
