"""Which tokens count at all: every rule of `learner.rejection` must let a token pass.

All take [n] detached log-probabilities and the tokens' completions and return [n] bool. A sampler's -inf is an infinite
ratio, and rejected wherever there is an upper edge; NaN is known to nothing and passes here (its weight is 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rayzero.services.schema.config.rejection import OffPolicyMask, SequenceMask, TokenMask, TokenVeto


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How far the policy is from the sampler, n tokens of s completions."""

    log_ratios: Tensor
    """[n] log pi_old / pi_rollout, 0 where it is unknown."""
    moved: Tensor
    """[n] log pi_rollout / pi_theta, 0 where it is unknown."""
    samples: Tensor
    """[n] int64 in [0, s)"""
    advantages: Tensor
    """[s]"""

    def sums(self, values: Tensor) -> Tensor:
        """[n] -> [s]"""
        return values.new_zeros(len(self.advantages)).index_add(0, self.samples, values)

    def means(self, values: Tensor) -> Tensor:
        """[n] -> [s]; 0 of an empty completion."""
        return self.sums(values) / self.sums(torch.ones_like(values)).clamp(min=1)


def passing(drift: Drift, rules: Sequence[Any]) -> Tensor:
    """[n] bool: no rule rejects the token."""
    passes = torch.ones_like(drift.samples, dtype=torch.bool)
    for rule in rules:
        passes = passes & RULES[rule.name](drift, rule)
    return passes


def token_mask(drift: Drift, rule: TokenMask) -> Tensor:
    """low <= r <= high."""
    return _inside(drift.log_ratios, rule.low, rule.high)


def token_veto(drift: Drift, rule: TokenVeto) -> Tensor:
    """low <= r <= high of every token of the completion."""
    outside = ~_inside(drift.log_ratios, rule.low, rule.high)
    return (drift.sums(outside.to(drift.log_ratios.dtype)) == 0)[drift.samples]


def sequence_mask(drift: Drift, rule: SequenceMask) -> Tensor:
    """low <= prod r <= high of the completion, or of the product's T-th root."""
    of_completion = drift.means(drift.log_ratios) if rule.mean else drift.sums(drift.log_ratios)
    return _inside(of_completion, rule.low, rule.high)[drift.samples]


def off_policy_mask(drift: Drift, rule: OffPolicyMask) -> Tensor:
    """A >= 0, or mean log(pi_rollout / pi_theta) <= limit."""
    return ((drift.advantages >= 0) | (drift.means(drift.moved) <= rule.limit))[drift.samples]


RULES: dict[str, Callable[[Drift, Any], Tensor]] = {
    "token_mask": token_mask,
    "token_veto": token_veto,
    "sequence_mask": sequence_mask,
    "off_policy_mask": off_policy_mask,
}


def _inside(log_ratios: Tensor, low: float, high: float | None) -> Tensor:
    above = log_ratios >= (math.log(low) if low > 0 else -math.inf)
    return above if high is None else above & (log_ratios <= math.log(high))
