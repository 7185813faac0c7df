"""Rewards of an episode's turns -> what each turn is credited with. numpy in, numpy out."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

CreditName = Literal["discounted", "progress"]


def turn_returns(
    turn_rewards: NDArray[np.float64],
    turn_rows: NDArray[np.int64],
    rewards: NDArray[np.float64],
    name: CreditName,
    discount: float,
) -> NDArray[np.float64]:
    """[M] of each turn the discounted sum of its own and all later rewards of its episode.

    `turn_rewards` [M]: NaN where the environment said nothing. `turn_rows` [M]: the episode of each, in order.
    `rewards` [S]: of whole episodes; what their turns leave of it is the last turn's.
    """
    returns = np.zeros(len(turn_rewards), dtype=np.float64)
    for row in np.unique(turn_rows):
        turns = np.flatnonzero(turn_rows == row)
        own = _own(turn_rewards[turns], name)
        own[-1] += rewards[row] - own.sum()
        later = 0.0
        for turn, reward in zip(turns[::-1], own[::-1], strict=True):
            later = returns[turn] = reward + discount * later
    return returns


def _own(given: NDArray[np.float64], name: CreditName) -> NDArray[np.float64]:
    if name == "discounted":
        return np.nan_to_num(given, nan=0.0)
    # A turn of which nothing was said has come as far as the one before it.
    reached = np.zeros(len(given) + 1)
    for place, value in enumerate(given, start=1):
        reached[place] = reached[place - 1] if np.isnan(value) else value
    return np.diff(reached)
