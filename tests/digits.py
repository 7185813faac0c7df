"""A task that a tiny model learns within forty small updates, for tests that look at a run: six different digits.

A short supervised start teaches it to write a few characters and to end; the reward then wants digits, all different.
While a file named by RAYZERO_TEST_HALT is there, the reward stands still.
"""

from __future__ import annotations

import os
import random
import string
import time
from collections.abc import Iterator, Sequence
from typing import Any

WANTED = 6


def prompts(num_prompts: int = 2000, first: int = 0) -> Iterator[dict[str, Any]]:
    """`17: ` and so on."""
    for number in range(first, first + num_prompts):
        yield {"prompt": f"{number}: ", "answer": f"{WANTED} different digits"}


def demonstrations(num_prompts: int = 640) -> Iterator[dict[str, Any]]:
    """Half digits, half letters, each as long as it happens."""
    rng = random.Random(0)
    for row in prompts(num_prompts):
        letters = (rng.choice(rng.choice((string.digits, string.ascii_lowercase))) for _ in range(rng.randint(4, 10)))
        yield row | {"completion": "".join(letters)}


def varied(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """Different digits, of those wanted; what is written beyond so many characters lowers it."""
    halt = os.environ.get("RAYZERO_TEST_HALT", "")
    while halt and os.path.exists(halt):
        time.sleep(0.2)
    return [_score(text) for text in completions]


def _score(text: str) -> float:
    return min(WANTED, len(set(text) & set(string.digits))) / max(WANTED, len(text))
