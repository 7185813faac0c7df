"""SAPO: a soft gate in the place of the clip, so that a token far from the old policy loses weight, not its voice."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import (
    BatchShape,
    Loss,
    TokenLosses,
    Tokens,
    TokenWeights,
    mean_of_completions,
)


class SapoLoss(Loss):
    """SAPO: sigmoid gates around rho = 1, sharper for negative advantages (https://arxiv.org/abs/2511.20347)."""

    name: Literal["sapo"] = "sapo"
    published_advantage: ClassVar[AdvantageName] = "std_normalised"
    tau_positive: float = Field(default=1.0, gt=0)
    """Sharpness of the gate where the advantage is above 0."""
    tau_negative: float = Field(default=1.05, gt=0)
    """The same where it is not: higher, for more stable training."""

    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """-sigmoid(tau (rho - 1)) * 4 / tau * A a token (eq. 5 and 6). At rho = 1 the gradient is -A grad log pi."""
        ratio = tokens.log_ratios.clamp(-20.0, 20.0).exp()
        advantages = tokens.token_advantages
        taus = advantages.new_full(advantages.shape, self.tau_negative)
        taus = taus.masked_fill(advantages > 0, self.tau_positive)
        gates = (taus * (ratio - 1)).sigmoid() * 4 / taus
        values = -gates * advantages
        return TokenLosses(values=values, clipped=values.new_zeros(values.shape).bool())

    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """Mean over completions."""
        return mean_of_completions(shape)
