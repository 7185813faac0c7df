"""GSPO: one length-normalised ratio a completion, clipped as a whole."""

from __future__ import annotations

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, clipped_ratio, mean_of_completions
from rayzero.services.schema.config.loss import GspoLoss


def token_losses(tokens: Tokens, settings: GspoLoss) -> TokenLosses:
    """-min(s A, clip(s) A), s = (prod_t pi_theta / pi_old)^(1/T) (https://arxiv.org/abs/2507.18071 eq. 5 and 7)."""
    sequence = tokens.per_sample_mean(tokens.policy - tokens.old)
    values, clipped = clipped_ratio(sequence, tokens.advantages, settings.clip_low, settings.clip_high)
    return TokenLosses(values=values[tokens.samples], clipped=clipped[tokens.samples])


LOSS = Loss(token_losses, mean_of_completions)
