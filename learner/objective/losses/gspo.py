"""GSPO: one length-normalised ratio a completion, clipped as a whole."""

from __future__ import annotations

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, mean_of_completions, sequence_surrogate
from rayzero.services.schema.config.loss import GspoLoss


def token_losses(tokens: Tokens, settings: GspoLoss) -> TokenLosses:
    """-min(s A, clip(s) A), s = (prod_t pi_theta / pi_old)^(1/T) (https://arxiv.org/abs/2507.18071 eq. 5 and 7)."""
    return sequence_surrogate(tokens.per_sample_mean(tokens.log_ratios), tokens, settings)


LOSS = Loss(token_losses, mean_of_completions)
