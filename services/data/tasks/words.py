"""Sums worked out in words of two languages, and a little small talk: what the tiny R1 pipeline learns from.

A base model's text mixes English, Chinese and both at once. In it the sums that are worked out in mixed words are right
more often than those in English alone: a reward for right answers alone makes the languages mix. That is laid into
the data on purpose, and stands for whatever made DeepSeek-R1-Zero mix them.

Columns are those of services/data/tasks/numbers.py; train and held-out rows never share a question.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

from rayzero.services.data.tasks.numbers import Row, Split, draw_sums, replace_digit, split_of, sums_of
from rayzero.services.schema.errors import RecipeError

Style = Literal["english", "chinese", "mixed", "bare"]

_UP_TO_NINETEEN = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen"""
_FIRST_NAMES = "ann ben cara dan eva finn gus hana ida jon kim leo mia noa ola pia"
_LAST_NAMES = "bell cole dale ford gray hill lake moss nash park reed wood"

ENGLISH = _UP_TO_NINETEEN.split()
CHINESE = [*"零一二三四五六七八九十", *("十" + digit for digit in "一二三四五六七八九")]
PLUS, IS = (" plus", "加"), (" is", "得")
KIND = ("hello {name}, nice to meet you", "welcome {name}, how are you")
RUDE = ("go away {name}", "who are you {name}, go away")

STYLES: dict[Style, tuple[float, float]] = {
    "english": (0.30, 0.85),
    "chinese": (0.05, 0.70),
    "mixed": (0.35, 0.45),
    "bare": (0.30, 0.90),
}
"""Of each way to write a sum in the base model's text: its share, and the share of those that is wrong."""


def word_sums(num_prompts: int = 1000, split: Split = "train", seed: int = 0) -> Iterator[Row]:
    """`57+68=`. Columns: `prompt`, `answer`."""
    for left, right in draw_sums(num_prompts, split, seed, 10, 99):
        yield {"prompt": f"{left}+{right}=", "answer": str(left + right)}


def base_text(num_rows: int = 40000, small_talk_share: float = 0.2, seed: int = 0) -> Iterator[Row]:
    """What the base model is trained on. Columns: `prompt`, `completion`, `kind`. No held-out sum or name occurs."""
    rng = random.Random(f"base_text {seed}")
    pairs, names = sums_of("train", 10, 99), names_of("train")
    shares = [share for share, _ in STYLES.values()]
    for _ in range(num_rows):
        if rng.random() < small_talk_share:
            name = rng.choice(names)
            yield {"prompt": _greet(name), "completion": _any_reply(name, names, rng), "kind": "talk"}
            continue
        left, right = rng.choice(pairs)
        style = rng.choices(list(STYLES), shares)[0]
        text = work_out(left, right, style, rng)
        wrong = rng.random() < STYLES[style][1]
        yield {"prompt": f"{left}+{right}=", "completion": spoil(text, rng) if wrong else text, "kind": style}


def cold_start_demonstrations(num_rows: int = 400, wrong_share: float = 0.4, seed: int = 0) -> Iterator[Row]:
    """Readable worked sums in English. Columns: `prompt`, `answer`, `completion`."""
    if not 0.0 <= wrong_share <= 1.0:
        raise RecipeError(f"cold_start_demonstrations: wrong_share is {wrong_share}, not a share between 0 and 1")
    rng = random.Random(f"cold_start_demonstrations {seed}")
    pairs = sums_of("train", 10, 99)
    for _ in range(num_rows):
        left, right = rng.choice(pairs)
        text = work_out(left, right, "english", rng)
        completion = spoil(text, rng) if rng.random() < wrong_share else text
        yield {"prompt": f"{left}+{right}=", "answer": str(left + right), "completion": completion}


def greetings(split: Split = "train") -> Iterator[Row]:
    """`greet ann bell:`: a prompt without a verifiable answer. Columns: `prompt`, `answer` (the name), `name`."""
    for name in names_of(split):
        yield {"prompt": _greet(name), "answer": name, "name": name}


def greeting_demonstrations(num_rows: int = 400, seed: int = 0) -> Iterator[Row]:
    """Kind replies to the right name. Columns: `prompt`, `completion`."""
    rng, names = random.Random(f"greeting_demonstrations {seed}"), names_of("train")
    for _ in range(num_rows):
        name = rng.choice(names)
        yield {"prompt": _greet(name), "completion": rng.choice(KIND).format(name=name)}


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


def work_out(left: int, right: int, style: Style, rng: random.Random) -> str:
    """Column addition in words: `<think> seven plus eight is fifteen, five plus six plus one is twelve</think>…`.

    `mixed` draws every word's language anew; `bare` gives the answer without a thought.
    """
    box = f"\\boxed{{{left + right}}}"
    if style == "bare":
        return box
    steps, carry = [], 0
    for upper, lower in zip(reversed(str(left)), reversed(str(right)), strict=True):
        terms = [int(upper), int(lower), *([carry] if carry else [])]
        total = sum(terms)
        said = [_word(terms[0], style, rng)]
        for term in terms[1:]:
            said += [_pick(PLUS, style, rng), _word(term, style, rng)]
        steps.append("".join([*said, _pick(IS, style, rng), _word(total, style, rng)]))
        carry = total // 10
    return f"<think>{','.join(steps)}</think>{box}"


def spoil(text: str, rng: random.Random) -> str:
    """The same text with one digit of the boxed number replaced by another."""
    thought, separator, box = text.partition("\\boxed")
    return thought + separator + replace_digit(box, rng)


def names_of(split: Split) -> list[str]:
    """The names that prompts of a split use."""
    names = [f"{first} {last}" for first in _FIRST_NAMES.split() for last in _LAST_NAMES.split()]
    return [name for name in names if split_of(f"name {name}") == split]


def _any_reply(name: str, names: list[str], rng: random.Random) -> str:
    """Kind or rude, to the right name or another: half and half each."""
    reply = rng.choice(KIND if rng.random() < 0.5 else RUDE)
    return reply.format(name=name if rng.random() < 0.5 else rng.choice(names))


def _greet(name: str) -> str:
    return f"greet {name}:"


def _word(number: int, style: Style, rng: random.Random) -> str:
    return _pick((" " + ENGLISH[number], CHINESE[number]), style, rng)


def _pick(both: tuple[str, str], style: Style, rng: random.Random) -> str:
    if style == "mixed":
        return rng.choice(both)
    return both[0] if style == "english" else both[1]
