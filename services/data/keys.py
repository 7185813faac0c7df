"""What makes two prompts one question, and what makes a prompt the same as before."""

from __future__ import annotations

import json
from typing import Any

import xxhash

from rayzero.services.schema.messages import ChatMessage, Prompt

KEY_BITS = 64
"""Of two keys that are compared: of a million prompts two share them by chance once in 30 million data sets."""


def prompt_key(prompt: Prompt) -> str:
    """What makes two prompts one question: roles and texts, white space at their ends and system messages aside."""
    return f"{_key(prompt.messages):032x}"


def short_key(prompt: Prompt) -> int:
    """The first half of a prompt's key; sorts as the whole key does."""
    return _key(prompt.messages) >> KEY_BITS


def question_key(question: str) -> int:
    """The short key of a prompt that is one message of the user's."""
    text = f"user\x1f{question.strip()}\x1e"
    return int(xxhash.xxh3_128_intdigest(text.encode(errors="surrogatepass"))) >> KEY_BITS


def content_digest(prompt: Prompt) -> str:
    """Changes with the question and with all that a reward may read."""
    return xxhash.xxh3_64_hexdigest(f"{prompt_key(prompt)} {judged_by(prompt)}".encode(errors="surrogatepass"))


def judged_by(prompt: Prompt) -> str:
    """The answer spec, the source and the further columns as one text: the same for equal ones."""
    if isinstance(prompt.answer, str) and not prompt.columns:
        return judged_by_text(prompt.answer, prompt.source)
    return as_text([prompt.answer, prompt.source, dict(prompt.columns)])


def judged_by_text(answer: str, source: str) -> str:
    """The same of a prompt that has an answer of text and no further column."""
    return f"{answer}\x1f{source}"


def as_text(value: Any) -> str:
    """JSON. What JSON does not know may print its address: its type stands for it."""
    return json.dumps(value, sort_keys=True, default=lambda unknown: type(unknown).__name__)


def _key(messages: tuple[ChatMessage, ...]) -> int:
    text = "".join(
        f"{message.role}\x1f{message.content.strip()}\x1e" for message in messages if message.role != "system"
    )
    return int(xxhash.xxh3_128_intdigest(text.encode(errors="surrogatepass")))
