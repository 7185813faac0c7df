"""What is left out of the loss for having left the policy: rules over tokens and completions, any number of them.

Each rule compares the learner with the engine that sampled; r is pi_old / pi_rollout of a token. What is rejected gives
no gradient and stays in every denominator.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rayzero.services.schema.config.base import Section


class _Band(Section):
    low: float = Field(default=0.0, ge=0)
    """Lower edge."""
    high: float | None = Field(default=None, gt=0)
    """Upper edge. Empty: none."""

    @model_validator(mode="after")
    def _has_an_edge(self) -> _Band:
        if self.low == 0 and self.high is None:
            raise ValueError("give low, high or both: without an edge nothing is rejected")
        if self.high is not None and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g}): else everything is rejected")
        if self.low > 1 or (self.high is not None and self.high < 1):
            raise ValueError(
                "at equal policies the ratio is 1, and that would be rejected: low may be 1 at most, high at least"
            )
        return self


class TokenMask(_Band):
    """Leave out a token whose r lies outside [low, high]."""

    name: Literal["token_mask"] = "token_mask"


class TokenVeto(_Band):
    """Leave out a completion of which one token's r lies outside [low, high]."""

    name: Literal["token_veto"] = "token_veto"


class SequenceMask(_Band):
    """Leave out a completion whose product of r over its tokens lies outside [low, high]; `mean: true`: whose geometric
    mean does."""

    name: Literal["sequence_mask"] = "sequence_mask"
    mean: bool = False
    """Compare the geometric mean, which does not grow with length, instead of the product."""


class OffPolicyMask(Section):
    """Leave out a completion with a negative advantage whose mean log(pi_rollout / pi_theta) exceeds `limit`: what the
    policy has moved away from teaches nothing (DeepSeek-V3.2, https://arxiv.org/abs/2512.02556, eq. 9)."""

    name: Literal["off_policy_mask"] = "off_policy_mask"
    limit: float = Field(default=0.5, gt=0)
    """Nats a token, delta of the paper, which gives no value; TRL suggests 0.5."""


Rejection = Annotated[TokenMask | TokenVeto | SequenceMask | OffPolicyMask, Field(discriminator="name")]
