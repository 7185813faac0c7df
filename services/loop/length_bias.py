"""How much shorter the completions are that are trained on than those that were begun.

Groups that are dropped because they took too long (`stale`, `over-provisioned`) are mostly those with long completions,
and so are episodes that a limit ended and the recipe drops.
What an aborted completion would have come to is not known, only that it is longer than it got: the mean of all is the
product-limit estimate (Kaplan and Meier, 1958), which counts such a completion for as long as it was seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rayzero.services.schema.causes import DropReason, ErrorCause
from rayzero.services.schema.messages import Completion, Group

WINDOW = 20
"""Updates that are looked at together."""
WARN_BELOW = -0.1
"""A tenth of the mean length is no accident of a few batches."""
TOOK_TOO_LONG = (DropReason.STALE, DropReason.OVER_PROVISIONED)

Length = tuple[int, bool]
"""(sampled tokens, whether that was its end)"""


@dataclass(slots=True)
class LengthBias:
    """Lengths of the last updates: what was trained on, and what was dropped for its time."""

    _trained: deque[list[Length]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _dropped: deque[list[Length]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _open: list[Length] = field(default_factory=list)
    """Dropped since the last update."""
    _warned: bool = False

    def on_drop(self, completions: Iterable[Completion], reason: DropReason | None) -> None:
        """A group is dropped, whole or not; only a drop for its time leans on lengths."""
        if reason in TOOK_TOO_LONG:
            self._open += [(each.num_sampled, each.finish_reason != "abort") for each in completions]

    def on_limit(self, group: Group) -> None:
        """A group is judged: episodes that have no verdict because a limit ended them are lost for their length."""
        ended = [rollout for rollout in group.rollouts if rollout.verdict.cause is ErrorCause.TRUNCATED]
        self._open += [(rollout.completion.num_sampled, False) for rollout in ended]

    def on_update(self, groups: Sequence[Group]) -> tuple[dict[str, float], list[str]]:
        """The figures after an update of `groups`, and a warning the first time that they lean far."""
        lengths: list[Length] = []
        for group in groups:
            judged = group.judged
            lengths += [(rollout.completion.num_sampled, True) for rollout in judged]
            if len(judged) < len(group.rollouts):
                self.on_limit(group)
        self._trained.append(lengths)
        self._dropped.append(self._open)
        self._open = []
        if not any(self._dropped):  # exactly 0, also right after a resume, when the window has just begun
            return {"length_bias": 0.0}, []
        trained = [length for batch in self._trained for length in batch]
        begun = [*trained, *(length for batch in self._dropped for length in batch)]
        admitted = mean_length(begun)
        mean = sum(length for length, _ in trained) / len(trained) if trained else math.nan
        bias = mean / admitted - 1.0 if admitted > 0 else 0.0
        figures = {"length_bias": bias, "completion_tokens_mean_begun": admitted}
        if not bias < WARN_BELOW or len(self._trained) < 3 or self._warned:
            return figures, []
        self._warned = True
        return figures, [
            f"completions that are trained on are {-bias:.0%} shorter ({mean:.0f} tokens) than those that were begun "
            f"({admitted:.0f} at least): what takes longer is dropped; training.on_stale: wait, "
            "training.over_provision: 0 and, of episodes, environment.truncated: keep drop none"
        ]


def mean_length(lengths: Sequence[Length]) -> float:
    """Mean of lengths of which some are only known to be longer; at least that, where the longest is one of them."""
    if not lengths:
        return math.nan
    tokens = np.array([length for length, _ in lengths], dtype=np.float64)
    ended = np.array([end for _, end in lengths])
    # An end counts before what was cut off at the same length: that had not ended yet.
    order = np.lexsort((~ended, tokens))
    tokens, ended = tokens[order], ended[order]
    left = np.arange(len(tokens), 0, -1)
    surviving = np.cumprod(1.0 - ended / left)
    steps = np.diff(tokens, prepend=0.0)
    return float(np.dot(steps, np.concatenate([[1.0], surviving[:-1]])))
