"""Low-rank adapters on the wire: how their halves are named, and the one formula by which they become weights.

Written for torch's tensors, which this package does not import: the learner's checkpoints and the engines' weights are
merged by the same lines, so that they are equal to the bit.
"""

from __future__ import annotations

from typing import Any

LOW, HIGH = ".lora_A", ".lora_B"
"""What follows a weight's Hugging Face name: A is [rank, inputs], B [outputs, rank]."""


def halves(weight: str) -> tuple[str, str]:
    """Names of A and B of a weight's adapter."""
    return weight + LOW, weight + HIGH


def merge(base: Any, low: Any, high: Any, scaling: float) -> Any:
    """base + scaling · high low [outputs, inputs], computed in fp32, rounded to base's dtype. Nothing is changed."""
    return base.float().addmm(high.float(), low.float(), alpha=scaling).to(base.dtype)
