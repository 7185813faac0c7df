"""GRPO, as DeepSeek published it: the default."""

from __future__ import annotations

from rayzero.learner.objective.losses.base import (
    Loss,
    TokenLosses,
    Tokens,
    mean_of_completions,
    sequence_surrogate,
    token_surrogate,
)
from rayzero.services.schema.config.loss import GrpoLoss


def token_losses(tokens: Tokens, settings: GrpoLoss) -> TokenLosses:
    """-min(rho A, clip(rho) A), rho a token (https://arxiv.org/abs/2402.03300 eq. 3) or a completion.

    `ratio: sequence` has rho = prod_t pi_theta / pi_old, one a completion (https://arxiv.org/abs/2501.12948 eq. 1);
    every token carries its completion's value, so that the mean over the completion is that value.
    """
    if settings.ratio == "token":
        return token_surrogate(tokens, settings)
    return sequence_surrogate(tokens.per_sample_sum(tokens.log_ratios), tokens, settings)


LOSS = Loss(token_losses, mean_of_completions)
