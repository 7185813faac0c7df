"""Rewards of a batch -> advantages. numpy in, numpy out; the settings' names are the functions' names.

Every function takes `rewards` [S] float64 and `groups` [S] int (which group a row is of) and returns advantages [S].
A reward that is NaN (an error verdict) is no observation: it leaves its group's statistics and gets advantage 0.
A group of one, and a group whose rewards are all equal, get 0: there is nothing to compare. `batch_normalised` alone
compares with the whole batch: there such a group gets what its reward is above or below the batch's mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rewards = NDArray[np.float64]
Advantage = Callable[[Rewards, NDArray[np.int64]], Rewards]
AdvantageName = Literal[
    "std_normalised",
    "mean_centred",
    "leave_one_out",
    "batch_normalised",
    "centred_batch_normalised",
    "mean_normalised",
    "component_normalised",
    "none",
]

_STD_FLOOR = 1e-8
"""Rewards that differ by rounding alone are equal: dividing by such a std would blow noise up to full advantages."""


def std_normalised(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """(r - mean) / std of the group (https://arxiv.org/abs/2402.03300, section 4.1.2, which does not say whose std: the
    population's here)."""
    return _by_group(rewards, groups, lambda r: _standardised(r - r.mean()))


def mean_centred(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """r - mean of the group (Dr. GRPO, https://arxiv.org/abs/2503.20783)."""
    return _by_group(rewards, groups, lambda r: _snapped(r - r.mean()))


def leave_one_out(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """r - mean of the group's other rewards (RLOO, https://arxiv.org/abs/2402.14740)."""
    return _by_group(rewards, groups, lambda r: _snapped(r - r.mean()) * (len(r) / max(len(r) - 1, 1)))


def batch_normalised(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """(r - mean) / std of the whole batch (REINFORCE++, https://arxiv.org/abs/2501.03262)."""
    return _by_group(rewards, np.zeros_like(groups), lambda r: _standardised(r - r.mean()))


def centred_batch_normalised(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """r - mean of the group, then divided by the batch's std (REINFORCE++-baseline, same paper)."""
    return _by_group(mean_centred(rewards, groups), np.zeros_like(groups), _standardised, where=np.isfinite(rewards))


def mean_normalised(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """(r - mean) / mean of the group (MaxRL, https://arxiv.org/abs/2602.02710): rare successes weigh more, as in
    maximum likelihood. A group whose mean is not above 0 gets 0."""
    return _by_group(rewards, groups, lambda r: _snapped(r - r.mean()) / r.mean() if r.mean() > _STD_FLOOR else 0 * r)


def component_normalised(scores: Rewards, weights: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """GDPO (https://arxiv.org/abs/2601.05242, eq. 4 and 7): (score - mean) / std of the group for every component by
    itself, their weighted sum, and that less its mean over its std in the batch.

    scores, weights [S, K]; a score that is NaN does not apply; a completion of which none applies is no observation.
    """
    observed: NDArray[np.bool_] = np.asarray(np.isfinite(scores).any(axis=1))
    summed = np.zeros(len(scores), dtype=np.float64)
    for column, weight in zip(scores.T, weights.T, strict=True):
        summed += np.where(np.isfinite(column), weight, 0.0) * std_normalised(column, groups)
    return _by_group(summed, np.zeros_like(groups), lambda a: _standardised(a - a.mean()), where=observed)


def none(rewards: Rewards, groups: NDArray[np.int64]) -> Rewards:
    """0 for all: the KL to the reference is the only teacher (on-policy distillation)."""
    return np.zeros(len(rewards), dtype=np.float64)


ADVANTAGES: dict[AdvantageName, Advantage] = {
    "std_normalised": std_normalised,
    "mean_centred": mean_centred,
    "leave_one_out": leave_one_out,
    "batch_normalised": batch_normalised,
    "centred_batch_normalised": centred_batch_normalised,
    "mean_normalised": mean_normalised,
    "none": none,
}


def _by_group(
    rewards: Rewards,
    groups: NDArray[np.int64],
    function: Callable[[Rewards], Rewards],
    where: NDArray[np.bool_] | None = None,
) -> Rewards:
    observed = np.isfinite(rewards) if where is None else where
    advantages = np.zeros(len(rewards), dtype=np.float64)
    for group in np.unique(groups):
        rows = (groups == group) & observed
        # One observation has no spread: its standard deviation of 0 would be divided by.
        if rows.sum() > 1:
            advantages[rows] = function(rewards[rows])
    return advantages


def _standardised(centred: Rewards) -> Rewards:
    std = float(np.sqrt(np.mean((centred - centred.mean()) ** 2)))
    if not std > _STD_FLOOR:
        return np.zeros_like(centred)
    standardised = centred / std
    # What is 0 but for rounding would be fed, and a step of such tokens alone would be Adam's momentum.
    return np.where(np.abs(standardised) > _STD_FLOOR, standardised, 0.0)


def _snapped(centred: Rewards) -> Rewards:
    return centred if np.abs(centred).max() > _STD_FLOOR else np.zeros_like(centred)
