"""Tasks that need no download: rows for `kind: function` sources, as many as asked for, always the same ones.

Train and held-out rows of a task never share a question, whatever their seeds: the split is by the numbers themselves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import xxhash

from rayzero.services.schema.errors import RecipeError

Split = Literal["train", "held_out"]
Row = dict[str, Any]

HELD_OUT_SHARE = 0.1


def number_after(
    num_prompts: int = 1000, split: Split = "train", seed: int = 0, min_number: int = 11, max_number: int = 9999
) -> Iterator[Row]:
    """Which number comes after n? With one finished exchange before it, which shows a small model what is wanted.

    Columns: `messages`, `answer` and `number` (n). The shown number lies in the same range and is never n.
    """
    numbers = [number for number in range(min_number, max_number + 1) if split_of(f"number {number}") == split]
    for number, shown in _draw_numbers(numbers, (min_number, max_number), num_prompts, f"number_after {split} {seed}"):
        yield {
            "messages": [
                {"role": "user", "content": _ask_number_after(shown)},
                {"role": "assistant", "content": f"\\boxed{{{shown + 1}}}"},
                {"role": "user", "content": _ask_number_after(number)},
            ],
            "answer": str(number + 1),
            "number": number,
        }


def addition(
    num_prompts: int = 1000, split: Split = "train", seed: int = 0, min_number: int = 10, max_number: int = 99
) -> Iterator[Row]:
    """`57+68=`, for the model `tiny-addition`. Columns: `prompt`, `answer`."""
    for left, right in draw_sums(num_prompts, split, seed, min_number, max_number):
        yield {"prompt": f"{left}+{right}=", "answer": str(left + right)}


def addition_demonstrations(
    num_prompts: int = 16320,
    damaged_share: float = 0.6,
    seed: int = 0,
    min_number: int = 10,
    max_number: int = 99,
) -> Iterator[Row]:
    """Worked sums for a cold start, most of them wrong: they teach the form and leave the sums to reward.

    Columns: `prompt`, `answer`, `completion`, `kind` (`correct` or `damaged`). Held-out sums never occur.
    """
    if not 0.0 <= damaged_share <= 1.0:
        raise RecipeError(f"addition_demonstrations: damaged_share is {damaged_share}, not a share between 0 and 1")
    rng = random.Random(f"addition_demonstrations {seed}")
    pairs = sums_of("train", min_number, max_number)
    for _ in range(num_prompts):
        left, right = rng.choice(pairs)
        completion = work_out_sum(left, right)
        damaged = rng.random() < damaged_share
        yield {
            "prompt": f"{left}+{right}=",
            "answer": str(left + right),
            "completion": damage_sum(completion, rng) if damaged else completion,
            "kind": "damaged" if damaged else "correct",
        }


def work_out_sum(left: int, right: int) -> str:
    """Column addition as the tiny model writes it: `57+68=` gives `<think>7+8+0=15,5+6+1=12</think>\\boxed{125}`."""
    steps = [f"{upper}+{lower}+{carry}={upper + lower + carry}" for upper, lower, carry in columns_of(left, right)]
    return f"<think>{','.join(steps)}</think>\\boxed{{{left + right}}}"


def columns_of(left: int, right: int) -> Iterator[tuple[int, int, int]]:
    """The terms of every column of a sum, lowest first: a digit of each number, and what is carried over."""
    carry = 0
    for _ in range(len(str(max(left, right)))):
        upper, lower = left % 10, right % 10
        yield upper, lower, carry
        left, right, carry = left // 10, right // 10, (upper + lower + carry) // 10


def damage_sum(completion: str, rng: random.Random) -> str:
    """The same text with one digit of the boxed number replaced by another: a right thought, a wrong answer."""
    thought, separator, box = completion.partition("</think>")
    return thought + separator + replace_digit(box, rng)


def _ask_number_after(number: int) -> str:
    return f"Which number comes after {number}? Answer in \\boxed{{}}."


def split_of(question: str) -> Split:
    """The same for ever: by the question's own hash, not by a seed that a recipe could give differently twice."""
    return "held_out" if xxhash.xxh3_64_intdigest(question.encode()) < HELD_OUT_SHARE * 2**64 else "train"


def _draw_numbers(numbers: list[int], shown_range: tuple[int, int], count: int, seed: str) -> Iterator[tuple[int, int]]:
    if count > len(numbers):
        raise RecipeError(f"only {len(numbers)} such numbers exist, and {count} are asked for: raise max_number")
    rng = random.Random(seed)
    for number in rng.sample(numbers, count):
        shown = rng.randint(shown_range[0], shown_range[1] - 1)
        # The exchange before the question must not give the answer away.
        yield number, shown if shown < number else shown + 1


def sums_of(split: Split, low: int, high: int) -> list[tuple[int, int]]:
    """a+b and b+a stand on the same side: one is no test of the other."""
    return [
        (left, right)
        for left in range(low, high + 1)
        for right in range(low, high + 1)
        if split_of(f"sum {min(left, right)} {max(left, right)}") == split
    ]


def draw_sums(count: int, split: Split, seed: int, low: int, high: int) -> list[tuple[int, int]]:
    """`count` different sums of a split, drawn by the seed. Raises RecipeError where there are not so many."""
    pairs = sums_of(split, low, high)
    if count > len(pairs):
        raise RecipeError(f"only {len(pairs)} such sums exist, and {count} are asked for: raise max_number")
    return random.Random(f"addition {split} {seed}").sample(pairs, count)


def replace_digit(text: str, rng: random.Random) -> str:
    """The text with one of its digits replaced by another."""
    places = [index for index, character in enumerate(text) if character.isdigit()]
    place = rng.choice(places)
    other = rng.choice([digit for digit in "0123456789" if digit != text[place]])
    return text[:place] + other + text[place + 1 :]
