"""A prompt beside its gold answer, on a line, to be read before a run: that they belong together no check can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rayzero.rewards.kinds.math_reward import gold_texts
from rayzero.services.schema.messages import Prompt
from rayzero.services.schema.printable import printable

SHOWN = 3
WITH_RULES = ("code", "instructions", "json_schema", "sql")
"""Kinds of rewards whose answers are tests or rules, in JSON text maybe: not compared at a glance."""
SHOWN_CHARACTERS = 160
"""Of a text: as many of its beginning and its end together."""


@dataclass(frozen=True, slots=True)
class Example:
    """What is asked, and what counts as right."""

    place: str
    """The prompt's id, or where its row is."""
    prompt: str
    answer: str

    @property
    def line(self) -> str:
        """On one line, long texts cut in their middle."""
        return f"{self.place}: {_one_line(self.prompt)}  →  {_one_line(self.answer)}"


def example(place: str, prompt: Prompt) -> Example | None:
    """None where the answer is no text."""
    golds = gold_texts(prompt.answer)
    return Example(place, prompt.messages[-1].content, ", ".join(golds)) if golds else None


def first_examples(prompts: Iterable[Prompt], num_sources: int) -> tuple[Example, ...]:
    """Up to SHOWN, of the first `num_sources` sources that have some."""
    found: list[Example] = []
    seen = Counter[str]()
    for prompt in prompts:
        if len(found) == SHOWN:
            break
        if seen[prompt.source] < max(1, SHOWN // num_sources) and (shown := example(prompt.prompt_id, prompt)):
            seen[prompt.source] += 1
            found.append(shown)
    return tuple(found)


def _one_line(text: str) -> str:
    text = printable(" ".join(text.split()))
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]} … {text[-half:]}"
