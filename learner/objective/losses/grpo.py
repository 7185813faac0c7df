"""GRPO, as DeepSeek published it: the default."""

from __future__ import annotations

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, clipped_ratio, mean_of_completions
from rayzero.services.schema.config.loss import GrpoLoss


def token_losses(tokens: Tokens, settings: GrpoLoss) -> TokenLosses:
    """-min(rho A, clip(rho) A), rho a token (https://arxiv.org/abs/2402.03300 eq. 3) or a completion.

    `ratio: sequence` has rho = prod_t pi_theta / pi_old, one a completion (https://arxiv.org/abs/2501.12948 eq. 1);
    every token carries its completion's value, so that the mean over the completion is that value.
    """
    log_ratio = tokens.policy - tokens.old
    if settings.ratio == "token":
        values, clipped = clipped_ratio(log_ratio, tokens.token_advantages, settings.clip_low, settings.clip_high)
        return TokenLosses(values=values, clipped=clipped)
    sequence = tokens.per_sample_sum(log_ratio)
    values, clipped = clipped_ratio(sequence, tokens.advantages, settings.clip_low, settings.clip_high)
    return TokenLosses(values=values[tokens.samples], clipped=clipped[tokens.samples])


LOSS = Loss(token_losses, mean_of_completions)
