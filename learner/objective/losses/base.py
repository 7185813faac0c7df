"""What every loss is made of: a value for each completion token, and a share that says how much the token weighs.

    loss = sum over all completion tokens t of  share[sample of t] * correction[t] * value[t]   (+ KL, - entropy)

The token_weights hold every denominator. They are computed once from the whole batch, so a sum over any split into
micro-batches or ranks has the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """n completion tokens of s whole completions, flat."""

    policy: Tensor
    """[n] log pi_theta, differentiable."""
    old: Tensor
    """[n] log pi_old, detached."""
    advantages: Tensor
    """[s]"""
    samples: Tensor
    """[n] int64: which completion each token is of."""

    @property
    def token_advantages(self) -> Tensor:
        """[n]"""
        return self.advantages[self.samples]

    def per_sample_sum(self, values: Tensor) -> Tensor:
        """[n] -> [s], summed over each completion's tokens."""
        return values.new_zeros(len(self.advantages)).index_add(0, self.samples, values)

    def per_sample_mean(self, values: Tensor) -> Tensor:
        """[n] -> [s], averaged over each completion's tokens; 0 where there is none."""
        counts = self.per_sample_sum(torch.ones_like(values))
        return self.per_sample_sum(values) / counts.clamp(min=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLosses:
    """What a loss says of each token."""

    values: Tensor
    """[n] differentiable, before token_weights."""
    clipped: Tensor
    """[n] bool: the gradient is cut off by the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchShape:
    """What denominators are made of. Error verdicts are not counted; empty completions are."""

    groups: NDArray[np.int64]
    """[S] which group each sample is of."""
    lengths: NDArray[np.int64]
    """[S] completion tokens of each sample."""
    max_completion_tokens: int
    """The rollout's limit."""

    @property
    def num_groups(self) -> int:
        """Groups with at least one sample."""
        return len(np.unique(self.groups))

    @property
    def group_sizes(self) -> NDArray[np.int64]:
        """[S] samples in each sample's own group."""
        _, inverse, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        return np.asarray(counts[inverse], dtype=np.int64)


Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Loss:
    """A named loss: its value for every token, and the share of every completion's tokens."""

    token_losses: Callable[[Tokens, Any], TokenLosses]
    """(tokens, the loss's settings) -> values and clips."""
    token_weights: Callable[[BatchShape, Any], Shares]
    """(shape of the whole batch, settings) -> [S] weight of each token of each sample."""


def clipped_ratio(log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) and where the clip cuts the gradient off.

    PPO's surrogate, https://arxiv.org/abs/1707.06347 eq. 7. All [k] of one length; rho = exp(log_ratio).
    """
    # exp(20) is 5e8: a ratio beyond that is a broken token, and inf * 0 would be NaN for all.
    ratio = torch.exp(log_ratio.clamp(-20.0, 20.0))
    free, cut = ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return -torch.minimum(free, cut), free > cut


def mean_of_completions(shape: BatchShape, _: Any = None) -> Shares:
    """Mean over a completion's tokens, then over its group, then over the groups: 1 / (groups * G * T)."""
    weights = 1.0 / (shape.num_groups * shape.group_sizes * np.maximum(shape.lengths, 1))
    return np.asarray(weights, dtype=np.float64)


def mean_of_tokens(shape: BatchShape, _: Any = None) -> Shares:
    """Mean over all tokens of the batch: 1 / N."""
    return np.full(len(shape.lengths), 1.0 / max(int(shape.lengths.sum()), 1))
