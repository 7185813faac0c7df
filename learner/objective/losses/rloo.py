"""RLOO: REINFORCE on whole completions, with the rest of the group as the baseline."""

from __future__ import annotations

import numpy as np

from rayzero.learner.objective.losses.base import (
    BatchShape,
    Loss,
    TokenLosses,
    Tokens,
    TokenWeights,
    sequence_surrogate,
)
from rayzero.services.schema.config.loss import RlooLoss


def token_losses(tokens: Tokens, settings: RlooLoss) -> TokenLosses:
    """-min(rho A, clip(rho) A), rho = prod_t pi_theta / pi_old of the completion.

    On the first step of a batch rho is 1 and the gradient is A * grad log pi(completion), the estimator of
    https://arxiv.org/abs/2402.14740 eq. 8; the clip, which the paper has not, only acts on later steps.
    """
    return sequence_surrogate(tokens.per_sample_sum(tokens.log_ratios), tokens, settings)


def token_weights(shape: BatchShape, _: RlooLoss) -> TokenWeights:
    """Mean over completions, each worth its value once: 1 / (S * T)."""
    return np.asarray(1.0 / (len(shape.lengths) * np.maximum(shape.lengths, 1)), dtype=np.float64)


LOSS = Loss(token_losses, token_weights)
