"""CISPO: no token loses its gradient; the importance weight in front of it is clipped instead."""

from __future__ import annotations

import torch

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, mean_of_tokens
from rayzero.services.schema.config.loss import CispoLoss


def token_losses(tokens: Tokens, settings: CispoLoss) -> TokenLosses:
    """-sg(clip(rho, 1 - low, 1 + high)) A log pi_theta (https://arxiv.org/abs/2506.13585 eq. 4-5).

    `clipped` marks tokens whose weight was cut; they still learn. The denominator is all tokens of the batch; the
    paper's is all tokens of a group, then a mean over groups.
    """
    ratio = torch.exp(tokens.log_ratios.detach().clamp(-20.0, 20.0))
    weight = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    return TokenLosses(values=-weight * tokens.token_advantages * tokens.policy_logprobs, clipped=weight != ratio)


LOSS = Loss(token_losses, mean_of_tokens)
