"""The turns of a batch's episodes: which of them each sampled token is of, and what the environment said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.messages import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTurns:
    """M turns of S samples, in order; a completion without turns is one."""

    rewards: NDArray[np.float64]
    """[M] NaN where the environment said nothing."""
    rows: NDArray[np.int64]
    """[M] the sample each is of."""
    tokens: NDArray[np.int64]
    """[N] the turn of each sampled token."""


def turns_of(completions: Sequence[Completion]) -> BatchTurns:
    """Of all samples of a batch, in its order: main completion, then branch by branch."""
    rewards: list[float] = []
    rows: list[int] = []
    tokens = [np.zeros(0, dtype=np.int64)]
    for row, completion in enumerate(completions):
        first = len(rewards)
        if not any(path.turns for path in completion.paths):
            rewards.append(np.nan)
            rows.append(row)
        for path in completion.paths:
            places = np.full(path.num_tokens, -1, dtype=np.int64)
            for turn in path.turns:
                places[turn.start : turn.end] = len(rewards)
                rewards.append(np.nan if turn.reward is None else turn.reward)
                rows.append(row)
            # What is marked as sampled outside of any turn belongs to the one before it.
            places = np.maximum(np.maximum.accumulate(places), first) if len(places) else places
            tokens.append(places if path.is_sampled is None else places[path.is_sampled])
    return BatchTurns(
        rewards=np.array(rewards, dtype=np.float64),
        rows=np.array(rows, dtype=np.int64),
        tokens=np.concatenate(tokens),
    )
