"""The factor on the loss in float16, whose smallest numbers are 6e-8: gradients below that would be zero.

Gradients are of the scaled loss until they lie in fp32, where they are divided by it. The factor is a power of two, so
neither rounds anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

LARGEST = 2.0**24
BEGINS_AT = 2.0**16
STEPS_TO_DOUBLE = 200


class LossScale:
    """1 for every other precision, and then nothing is scaled."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.is_used = dtype == torch.float16
        self.value = BEGINS_AT if self.is_used else 1.0
        self.num_good = 0
        """Steps since it last changed."""

    def of(self, loss: torch.Tensor) -> torch.Tensor:
        """What is differentiated in place of the loss."""
        return loss * self.value if self.is_used else loss

    def halve(self) -> bool:
        """After a gradient that is not finite; False where no smaller one is left, and the gradient itself is so."""
        if not self.is_used or self.value <= 1.0:
            return False
        self.value, self.num_good = self.value / 2, 0
        return True

    def grow(self) -> None:
        """After a gradient that is finite: twice as large after so many in a row."""
        if not self.is_used:
            return
        self.num_good += 1
        if self.num_good >= STEPS_TO_DOUBLE:
            self.value, self.num_good = min(2 * self.value, LARGEST), 0

    def state_dict(self) -> dict[str, float]:
        """For a bit-exact resume."""
        return {"value": self.value, "num_good": self.num_good}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore `state_dict`."""
        self.value, self.num_good = float(state["value"]), int(state["num_good"])
