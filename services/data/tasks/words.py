"""Sums worked out in words of two languages, and a little small talk: what the tiny R1 pipeline learns from.

Every sum in a base model's text is right. Most are answered at once, which so small a model cannot do in its head after
so little training. Those in English alone are terse: they name the columns' totals and leave the work to the reader.
Those that spell the work out, which is what the model can learn, mix English and Chinese: a reward for right answers
alone then makes languages mix. That is laid into the data, and stands for whatever made DeepSeek-R1-Zero mix them.

Columns are those of services/data/tasks/numbers.py. Train and held-out rows of the policy never share a question; the
pairs of the two reward models hold the names of both.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

from rayzero.services.data.tasks.column_sums import column_sums, draw_sum
from rayzero.services.data.tasks.numbers import Row, Split, columns_of, split_of

Way = Literal["hasty", "terse", "mixed", "english"]
"""To answer a sum: at once; from the columns' totals, in English; all of it spelt out, in both languages at once or in
English alone."""

_FIRST_NAMES = "ann ben cara dan eva finn gus hana ida jon kim leo mia noa ola pia"
_LAST_NAMES = "bell cole dale ford gray hill lake moss nash park reed wood"

ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CHINESE = "零一二三四五六七八九"
PLUS, IS = (" plus", "加"), (" is", "得")
KIND = ("hello {name}, nice to meet you", "welcome {name}, how are you")
RUDE = ("go away {name}", "who are you {name}, go away")

WAYS: dict[Way, float] = {"hasty": 0.60, "terse": 0.10, "mixed": 0.30}
"""How often each is met among the sums of the base model's text."""
DIGITS = 3


def word_sums(num_prompts: int = 1000, split: Split = "train", seed: int = 0) -> Iterator[Row]:
    """`457+268=`, no sum twice. Columns: `prompt`, `answer`."""
    return column_sums(num_prompts, split, seed, DIGITS)


def base_text(num_rows: int = 48000, small_talk_share: float = 0.15, seed: int = 0) -> Iterator[Row]:
    """What the base model is trained on. Columns: `prompt`, `completion`, `kind`. No held-out sum or name occurs."""
    rng = random.Random(f"base_text {seed}")
    names = names_of("train")
    for _ in range(num_rows):
        if rng.random() < small_talk_share:
            yield _talk(rng.choice(names), rng)
            continue
        left, right = draw_sum(rng, DIGITS, "train")
        (way,) = rng.choices(list(WAYS), list(WAYS.values()))
        yield {"prompt": f"{left}+{right}=", "completion": work_out(left, right, way, rng), "kind": way}


def cold_start_demonstrations(num_rows: int = 400, seed: int = 0) -> Iterator[Row]:
    """Readable sums, spelt out in English. Columns: `prompt`, `answer`, `completion`."""
    rng = random.Random(f"cold_start_demonstrations {seed}")
    for _ in range(num_rows):
        left, right = draw_sum(rng, DIGITS, "train")
        completion = work_out(left, right, "english", rng)
        yield {"prompt": f"{left}+{right}=", "answer": str(left + right), "completion": completion}


def greetings(split: Split = "train") -> Iterator[Row]:
    """`greet ann bell:`: a prompt without a verifiable answer. Columns: `prompt`, `answer` (the name), `name`."""
    for name in names_of(split):
        yield {"prompt": _greet(name), "answer": name, "name": name}


def small_talk(num_rows: int = 400, seed: int = 0) -> Iterator[Row]:
    """Replies as people gave them, to the right name, half of them rude. Columns: `prompt`, `completion`, `kind`."""
    rng, names = random.Random(f"small_talk {seed}"), names_of("train")
    for _ in range(num_rows):
        yield _talk(rng.choice(names), rng)


def helpful_pairs(num_rows: int = 600, seed: int = 0) -> Iterator[Row]:
    """Who is greeted matters, tone does not. Columns: `prompt`, `chosen`, `rejected`."""
    rng, names = random.Random(f"helpful_pairs {seed}"), [*names_of("train"), *names_of("held_out")]
    for _ in range(num_rows):
        name, other = rng.sample(names, 2)
        chosen, rejected = (rng.choice([*KIND, *RUDE]) for _ in range(2))
        yield {"prompt": _greet(name), "chosen": chosen.format(name=name), "rejected": rejected.format(name=other)}


def harmless_pairs(num_rows: int = 600, seed: int = 0) -> Iterator[Row]:
    """Tone matters, who is greeted does not. Columns: `prompt`, `chosen`, `rejected`."""
    rng, names = random.Random(f"harmless_pairs {seed}"), [*names_of("train"), *names_of("held_out")]
    for _ in range(num_rows):
        name, first, second = rng.choice(names), rng.choice(names), rng.choice(names)
        chosen, rejected = rng.choice(KIND).format(name=first), rng.choice(RUDE).format(name=second)
        yield {"prompt": _greet(name), "chosen": chosen, "rejected": rejected}


def greeted(completions: list[str], name: list[str], **_: Any) -> list[float]:
    """A reward: 1 for a kind reply to the right name, word for word. What the reward models are held against."""
    return [
        float(text.rpartition("</think>")[2].strip() in {reply.format(name=who) for reply in KIND})
        for text, who in zip(completions, name, strict=True)
    ]


def work_out(left: int, right: int, way: Way, rng: random.Random) -> str:
    """Column addition in words: of `457+268=` in English
    `<think> seven plus eight plus zero is one five, five plus six plus one is one two, four plus two plus one is …`.

    `mixed` draws every word's language anew, `terse` gives the totals alone, ` one five, one two, zero seven`, `hasty`
    has no thought. Every total has two digits and every carry is named: each word of a thought has its place.
    """
    box = f"\\boxed{{{left + right}}}"
    if way == "hasty":
        return box
    columns = []
    for terms in columns_of(left, right):
        tens, ones = divmod(sum(terms), 10)
        said = _word(tens, way, rng) + _word(ones, way, rng)
        columns.append(said if way == "terse" else _terms(terms, way, rng) + _pick(IS, way, rng) + said)
    return f"<think>{','.join(columns)}</think>{box}"


def names_of(split: Split) -> list[str]:
    """The names that prompts of a split use."""
    names = [f"{first} {last}" for first in _FIRST_NAMES.split() for last in _LAST_NAMES.split()]
    return [name for name in names if split_of(f"name {name}") == split]


def _talk(name: str, rng: random.Random) -> Row:
    return {"prompt": _greet(name), "completion": rng.choice([*KIND, *RUDE]).format(name=name), "kind": "talk"}


def _greet(name: str) -> str:
    return f"greet {name}:"


def _terms(terms: tuple[int, ...], way: Way, rng: random.Random) -> str:
    first, *others = terms
    return _word(first, way, rng) + "".join(_pick(PLUS, way, rng) + _word(term, way, rng) for term in others)


def _word(digit: int, way: Way, rng: random.Random) -> str:
    return _pick((" " + ENGLISH[digit], CHINESE[digit]), way, rng)


def _pick(both: tuple[str, str], way: Way, rng: random.Random) -> str:
    return rng.choice(both) if way == "mixed" else both[0]
