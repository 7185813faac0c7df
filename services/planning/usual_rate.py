"""Which learning rate is usual for a model of that size: for `rayzero new` to write and `rayzero check` to compare."""

from __future__ import annotations

TINY, SMALL = 5 * 10**7, 10**9
"""Parameters: below the first a model is a toy, below the second it is small."""
ADAPTERS = 10.0
"""A LoRA adapter takes so many times the rate."""
LOWEST, HIGHEST = 0.01, 30.0
"""Shares of the usual rate, beyond which `rayzero check` says so: wide, for rates are a matter of the data, too."""


def usual_rate(num_parameters: int, *, has_adapters: bool = False) -> float:
    """AdamW's peak rate for GRPO."""
    whole = 1e-3 if num_parameters < TINY else 2e-5 if num_parameters < SMALL else 1e-6
    return whole * (ADAPTERS if has_adapters else 1.0)
