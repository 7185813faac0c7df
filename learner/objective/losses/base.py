"""What every loss is made of: a value for each completion token, and a weight for the tokens of each completion.

    loss = sum over all completion tokens t of  weight[sample of t] * correction[t] * value[t]   (+ KL, - entropy)

The token weights hold every denominator. They are computed once from the whole batch, so a sum over any split into
micro-batches or ranks has the same gradient.

A loss is a section of the recipe as well, and recipes are read where torch is not installed: in this folder torch is
imported for its types alone, and tensors are computed with by their own methods.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.services.schema.config.base import Section

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchShape:
    """Of an optimizer step: what denominators are made of. Error verdicts are not counted; empty completions are."""

    groups: NDArray[np.int64]
    """[S] which group each sample is of."""
    lengths: NDArray[np.int64]
    """[S] completion tokens of each sample; 0 where `learner.truncated: mask` leaves it out."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """n completion tokens of s whole completions, flat: those of one micro-batch. What is computed across completions
    depends on the split; what a loss needs of all of them stands in `batch`."""

    policy_logprobs: Tensor
    """[n] log pi_theta, differentiable."""
    old_logprobs: Tensor
    """[n] log pi_old, detached."""
    advantages: Tensor
    """[s]"""
    samples: Tensor
    """[n] int64: which completion each token is of."""
    turn_advantages: Tensor | None = None
    """[n] of each token's turn, where turns are credited by themselves (`learner.credit`)."""
    batch: BatchShape | None = None
    """Of all S completions of the optimizer step, the same in each of its micro-batches. A run always gives it."""

    @property
    def log_ratios(self) -> Tensor:
        """[n] log(pi_theta / pi_old)."""
        return self.policy_logprobs - self.old_logprobs

    @property
    def token_advantages(self) -> Tensor:
        """[n]"""
        return self.advantages[self.samples] if self.turn_advantages is None else self.turn_advantages

    def per_sample_sum(self, values: Tensor) -> Tensor:
        """[n] -> [s], summed over each completion's tokens."""
        return values.new_zeros(len(self.advantages)).index_add(0, self.samples, values)

    def per_sample_mean(self, values: Tensor) -> Tensor:
        """[n] -> [s], averaged over each completion's tokens; 0 where there is none."""
        counts = self.per_sample_sum(values.new_ones(values.shape))
        # An empty completion has no mean; 0 / 0 would be NaN in the loss of all others.
        return self.per_sample_sum(values) / counts.clamp(min=1)


class Clips(Protocol):
    """Settings of a loss that clips its ratio."""

    @property
    def clip_low(self) -> float:
        """The ratio is cut below 1 - clip_low."""
        ...

    @property
    def clip_high(self) -> float:
        """The ratio is cut above 1 + clip_high."""
        ...

    @property
    def dual_clip(self) -> float | None:
        """The value of a negative advantage is cut at so many times the advantage."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLosses:
    """What a loss says of each token."""

    values: Tensor
    """[n] differentiable, before token weights."""
    clipped: Tensor
    """[n] bool: the gradient is cut off by the clip."""


TokenWeights = NDArray[np.float64]


class Loss(Section):
    """A named loss: its settings in the recipe, its value for every token, the weight of every completion's tokens.

    Each has a field `name`, a Literal: what a recipe calls it.
    """

    published_advantage: ClassVar[AdvantageName]
    """How rewards become advantages where the recipe does not say."""
    rests_without_advantage: ClassVar[bool] = True
    """A completion whose advantage is 0 gives no gradient, whatever the ratios: it need not be fed."""

    @abstractmethod
    def token_losses(self, tokens: Tokens) -> TokenLosses:
        """What each token is worth, and where its gradient is cut off."""

    @abstractmethod
    def token_weights(self, shape: BatchShape) -> TokenWeights:
        """[S] the weight of each token of each sample, from the shape of the whole batch: all denominators."""

    @property
    def has_one_ratio(self) -> bool:
        """Whether all tokens of a completion have one value, and turns cannot be credited by themselves."""
        return False

    def reward_shaping(self, lengths: NDArray[np.int64], max_tokens: int) -> NDArray[np.float64]:
        """[S] what is added to each reward, from completion lengths and the rollout's token limit."""
        return np.zeros(len(lengths))


def clipped_ratio(
    log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) and where the clip cuts the gradient off.

    PPO's surrogate, https://arxiv.org/abs/1707.06347 eq. 7. All [k] of one length; rho = exp(log_ratio). With
    `dual_clip` c it is -max(min(…), c A) where A is negative (https://arxiv.org/abs/1912.09729, eq. 5).
    """
    # exp(20) is 5e8: a ratio beyond that is a broken token, and inf * 0 would be NaN for all.
    ratio = log_ratio.clamp(-20.0, 20.0).exp()
    free, cut = ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    surrogate, clipped = free.minimum(cut), free > cut
    if dual_clip is not None:
        floor = dual_clip * advantages
        beyond = (advantages < 0) & (surrogate < floor)
        surrogate, clipped = surrogate.where(~beyond, floor), clipped | beyond
    return -surrogate, clipped


def token_surrogate(tokens: Tokens, settings: Clips) -> TokenLosses:
    """The clipped surrogate with one ratio a token: rho_t = pi_theta / pi_old of that token."""
    values, clipped = clipped_ratio(
        tokens.log_ratios, tokens.token_advantages, settings.clip_low, settings.clip_high, settings.dual_clip
    )
    return TokenLosses(values=values, clipped=clipped)


def sequence_surrogate(log_ratios: Tensor, tokens: Tokens, settings: Clips) -> TokenLosses:
    """The clipped surrogate with one ratio a completion, [s] `log_ratios`: each of its tokens has the same value."""
    values, clipped = clipped_ratio(
        log_ratios, tokens.advantages, settings.clip_low, settings.clip_high, settings.dual_clip
    )
    return TokenLosses(values=values[tokens.samples], clipped=clipped[tokens.samples])


def mean_of_completions(shape: BatchShape) -> TokenWeights:
    """Mean over a completion's tokens, then over its group, then over the groups: 1 / (groups * G * T)."""
    weights = 1.0 / (shape.num_groups * shape.group_sizes * np.maximum(shape.lengths, 1))
    return np.asarray(weights, dtype=np.float64)


def mean_of_tokens(shape: BatchShape) -> TokenWeights:
    """Mean over all tokens of the batch: 1 / N."""
    return np.full(len(shape.lengths), 1.0 / max(int(shape.lengths.sum()), 1))


def mean_of_group_tokens(shape: BatchShape) -> TokenWeights:
    """Mean over all tokens of a group, then over the groups: 1 / (groups * tokens of the group)."""
    _, inverse = np.unique(shape.groups, return_inverse=True)
    tokens = np.bincount(inverse, weights=shape.lengths)[inverse]
    return np.asarray(1.0 / (shape.num_groups * np.maximum(tokens, 1)), dtype=np.float64)


def sums_over_the_limit(shape: BatchShape) -> TokenWeights:
    """Sum over a completion's tokens over the rollout's limit, mean over the group, then over groups."""
    return np.asarray(1.0 / (shape.num_groups * shape.group_sizes * shape.max_completion_tokens), dtype=np.float64)


Aggregation = Literal["completion_mean", "token_mean", "group_token_mean", "constant"]

AGGREGATIONS: dict[str, Callable[[BatchShape], TokenWeights]] = {
    "completion_mean": mean_of_completions,
    "token_mean": mean_of_tokens,
    "group_token_mean": mean_of_group_tokens,
    "constant": sums_over_the_limit,
}
