"""A reward for random weights, which say nothing that could be right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def luck(prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Half of all completions get 1, always the same ones."""
    return [float(sum(tokens) % 2) for tokens in completion_ids]
