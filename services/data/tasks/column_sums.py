"""Sums of longer numbers, answered at once or worked out column by column: what the small R1-Zero learns from.

Every row is right. A hasty one gives the sum at once, which a small model cannot do in its head after so little
training; a careful one works it out first, and takes its time. Which of the two a model does is left to it.

Train and held-out rows never share a sum, nor its two numbers the other way round.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rayzero.services.data.tasks.numbers import Row, Split, columns_of, split_of
from rayzero.services.schema.errors import RecipeError

MAX_DIGITS = 18


def column_sums(num_prompts: int = 1000, split: Split = "train", seed: int = 0, digits: int = 3) -> Iterator[Row]:
    """`457+268=`, no sum twice. Columns: `prompt`, `answer`. `digits`: of each number.

    Raises:
        RecipeError: there are not so many sums of so few digits.
    """
    _check_digits(digits)
    if num_prompts > (9 * 10 ** (digits - 1)) ** 2 // 20:
        raise RecipeError(f"column_sums: {num_prompts} sums of numbers of {digits} digits are too many: raise digits")
    rng, seen = random.Random(f"column_sums {split} {seed}"), set[tuple[int, int]]()
    while len(seen) < num_prompts:
        pair = draw_sum(rng, digits, split)
        if pair not in seen:
            seen.add(pair)
            yield {"prompt": f"{pair[0]}+{pair[1]}=", "answer": str(sum(pair))}


def column_sum_text(num_rows: int = 32000, careful_share: float = 0.3, seed: int = 0, digits: int = 3) -> Iterator[Row]:
    """What the base model is trained on, every row right. Columns: `prompt`, `completion`, `kind` (`hasty` or
    `careful`). No held-out sum occurs."""
    _check_digits(digits)
    if not 0.0 <= careful_share <= 1.0:
        raise RecipeError(f"column_sum_text: careful_share is {careful_share}, not a share between 0 and 1")
    rng = random.Random(f"column_sum_text {seed}")
    for _ in range(num_rows):
        careful = rng.random() < careful_share
        pair = draw_sum(rng, digits, "train")
        box = f"\\boxed{{{sum(pair)}}}"
        yield {
            "prompt": f"{pair[0]}+{pair[1]}=",
            "completion": f"<think>{columns(*pair)}</think>{box}" if careful else box,
            "kind": "careful" if careful else "hasty",
        }


def columns(left: int, right: int) -> str:
    """Column addition: `457+268` gives `7+8+0=15,5+6+1=12,4+2+1=07`. Totals have two digits each, so that every digit
    of a thought has its place: without it no small model learnt this in so few rows."""
    return ",".join(
        f"{upper}+{lower}+{carry}={upper + lower + carry:02d}" for upper, lower, carry in columns_of(left, right)
    )


def draw_sum(rng: random.Random, digits: int, split: Split) -> tuple[int, int]:
    """a+b and b+a stand on the same side: one is no test of the other."""
    low, high = 10 ** (digits - 1), 10**digits
    while True:
        pair = rng.randrange(low, high), rng.randrange(low, high)
        if split_of(f"sum {min(pair)} {max(pair)}") == split:
            return pair


def _check_digits(digits: int) -> None:
    if not 1 <= digits <= MAX_DIGITS:
        raise RecipeError(f"column sums: digits is {digits}, not a number between 1 and {MAX_DIGITS}")
