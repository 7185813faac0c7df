"""Cases for the tests of single rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayzero.rewards.base import Case
from rayzero.services.schema.messages import ChatMessage, Prompt


def case(text: str, *, answer: Any = None, columns: Mapping[str, Any] | None = None, **fields: Any) -> Case:
    """A completion of the prompt "Q"."""
    messages = (ChatMessage(role="user", content="Q"),)
    prompt = Prompt(prompt_id="1", messages=messages, answer=answer, columns=columns or {})
    return Case(prompt=prompt, text=text, **fields)
