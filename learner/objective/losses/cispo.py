"""CISPO: no token loses its gradient; the importance weight in front of it is clipped instead."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import BatchShape, Loss, TokenLosses, Tokens, TokenWeights, mean_of_tokens


class CispoLoss(Loss):
    """CISPO: REINFORCE with a clipped, detached importance weight (https://arxiv.org/abs/2506.13585 eq. 4-5)."""

    name: Literal["cispo"] = "cispo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    clip_low: float = Field(default=1.0, gt=0, le=1)
    """The weight is clipped below at 1 - clip_low: 1 means no lower clip, as published."""
    clip_high: float = Field(default=4.0, gt=0)
    """The weight is clipped above at 1 + clip_high."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-sg(clip(rho, 1 - low, 1 + high)) A log pi_theta (https://arxiv.org/abs/2506.13585 eq. 4-5).

        `clipped` marks tokens whose weight was cut; they still learn.
        """
        ratio = tokens.log_ratios.detach().clamp(-20.0, 20.0).exp()
        weight = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        return TokenLosses(values=-weight * tokens.token_advantages * tokens.policy_logprobs, clipped=weight != ratio)

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over all tokens of the batch; the paper's is over all tokens of a group, then over groups."""
        return mean_of_tokens(shape)
