"""REINFORCE++: token-level clipping with an advantage normalised over the batch."""

from __future__ import annotations

from rayzero.learner.objective.losses.base import Loss, TokenLosses, Tokens, mean_of_tokens, token_surrogate
from rayzero.services.schema.config.loss import ReinforcePlusPlusLoss


def token_losses(tokens: Tokens, settings: ReinforcePlusPlusLoss) -> TokenLosses:
    """-min(rho A, clip(rho) A) a token (https://arxiv.org/abs/2501.03262 eq. 3), discount 1.

    Simplified: the reward is given once a completion; the paper's KL reward a token is `kl.place: reward`, summed.
    """
    return token_surrogate(tokens, settings)


LOSS = Loss(token_losses, mean_of_tokens)
