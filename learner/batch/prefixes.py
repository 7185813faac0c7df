"""What the prompts of a micro-batch have in common at their start, a system prompt or examples: it is laid once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MIN_SHARED = 8
"""Tokens. Fewer are computed again: each piece of a prompt that lies elsewhere is one more to gather keys from."""


def shared_prefixes(prompts: Sequence[NDArray[np.int32]]) -> list[tuple[int, int]]:
    """(prompt, tokens that it shares with the one before it) in an order in which each shares as many as it can.

    A prompt keeps its last token at least for itself, so that something of each lies in its own place. Where nothing is
    shared the order is the given one.
    """
    # Of sorted strings the one before shares most. Numbers of a fixed width sort as strings do, their high byte first.
    order = sorted(range(len(prompts)), key=lambda number: prompts[number].astype(">i4").tobytes())
    shared = [_in_common(prompts[one], prompts[other]) for one, other in pairwise(order)]
    if not any(shared):
        return [(number, 0) for number in range(len(prompts))]
    return list(zip(order, [0, *shared], strict=True))


def _in_common(before: NDArray[np.int32], prompt: NDArray[np.int32]) -> int:
    most = min(len(before), len(prompt) - 1)
    unlike = np.flatnonzero(before[:most] != prompt[:most])
    length = int(unlike[0]) if len(unlike) else most
    return length if length >= MIN_SHARED else 0
