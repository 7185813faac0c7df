"""The KL between learner and engine over several comparisons: of a few tokens each, together enough to stop a run."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

REMEDY = "compute more exactly (model.dtype, no rollout.quantization)"
"""Where engine and learner give the same tokens different probabilities."""
MOST = 64
"""Comparisons that are looked back at: further back the engine may have been another."""


@dataclass(slots=True)
class RecentKl:
    """Remembers the last comparisons at equal weights.

    Where completions are short or batches small, no single comparison has the tokens that a stop asks for, and a run
    whose engine computes something else would only ever be warned of.
    """

    _last: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MOST))
    """(mean KL in nats a token, tokens), the newest last."""

    def add(self, kl: float, num_tokens: int, min_tokens: int) -> tuple[float, int]:
        """Remember one comparison. Returns (mean KL, tokens) of the newest ones that together have `min_tokens`; of all
        that there are, where those have fewer. A KL that is not a number is returned as it is, and not remembered."""
        if math.isnan(kl) or num_tokens == 0:
            return kl, num_tokens
        self._last.append((kl, num_tokens))
        total, tokens = 0.0, 0
        for each, count in reversed(self._last):
            total, tokens = total + each * count, tokens + count
            if tokens >= min_tokens:
                break
        return total / tokens, tokens
