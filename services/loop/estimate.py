"""A mean over prompts, with the error that it has.

The prompts are the sample, not the completions: completions of one prompt are alike, so the error comes from the spread
over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Z95 = 1.96


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over prompts and the standard error of that mean."""

    mean: float
    standard_error: float
    num_prompts: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by the normal approximation."""
        return self.mean - Z95 * self.standard_error, self.mean + Z95 * self.standard_error

    def to_dict(self) -> dict[str, Any]:
        """JSON-like."""
        low, high = self.interval
        return {"mean": self.mean, "se": self.standard_error, "low": low, "high": high, "prompts": self.num_prompts}


def estimate(values: Sequence[float]) -> Estimate:
    """Of one value a prompt. NaN where there are none; no error is known of a single one."""
    count = len(values)
    mean = sum(values) / count if count else math.nan
    variance = sum((value - mean) ** 2 for value in values) / (count - 1) if count > 1 else math.nan
    return Estimate(mean=mean, standard_error=math.sqrt(variance / count) if count > 1 else math.nan, num_prompts=count)
