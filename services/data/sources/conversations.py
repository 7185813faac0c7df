"""A conversation in a row -> chat messages: `{role, content}`, OpenAI's content parts, ShareGPT's turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from rayzero.services.data.formats.columns import kind_of
from rayzero.services.data.formats.problem import RowFault
from rayzero.services.schema.messages import ChatMessage
from rayzero.services.schema.printable import encodable, escaped

Role = Literal["system", "user", "assistant"]
ROLES = get_args(Role)
_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "model": "assistant"}
"""ShareGPT's names of the roles."""


def conversation(name: str, content: Any) -> tuple[ChatMessage, ...]:
    """The messages in column `name`. Raises RowFault."""
    where = f"column {name!r}"
    if not isinstance(content, list | tuple) or not content:
        raise RowFault("wrong type", f"{where} must be text or a list of {{role, content}}, not {kind_of(content)}")
    messages = tuple(_message(f"{where}: message {index}", turn) for index, turn in enumerate(content))
    if messages[-1].role != "user":
        raise RowFault("wrong role", f"{where}: the last message must be the user's, for the model to answer it")
    return messages


def _message(where: str, turn: Any) -> ChatMessage:
    if not isinstance(turn, dict) and not isinstance(turn, Mapping):  # the second is slow
        raise RowFault("wrong type", f"{where} must be {{role, content}}, not {kind_of(turn)}")
    if turn.get("role") is None and "from" in turn:
        speaker = turn["from"]
        role, text = _SPEAKERS.get(str(speaker), speaker), turn.get("value")
    else:
        role, text = turn.get("role"), turn.get("content")
    if role not in ROLES:
        raise RowFault("wrong role", f"{where} has the role {role!r}; known: {', '.join(ROLES)}")
    return ChatMessage(role=cast(Role, role), content=check_text(where, _text(where, text)))


def check_text(where: str, text: str) -> str:
    """The text. Raises RowFault where it holds an unpaired surrogate: no tokenizer takes it, and no file either."""
    if (writable := encodable(text)) != text:
        at = next(index for index, (a, b) in enumerate(zip(text, writable, strict=False)) if a != b)
        raise RowFault(
            "half a character",
            f"{where} holds half a character ({escaped(text[at])}, an unpaired surrogate) at {at}, as left by a text "
            "that was cut in an emoji; mend or remove the row",
        )
    return text


def _text(where: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RowFault("wrong type", f"{where} must be {{role, content}} with text as content, not {kind_of(content)}")
    parts = []
    for part in content:
        part = {"text": part} if isinstance(part, str) else part
        kind = part.get("type") or "text" if isinstance(part, Mapping) else kind_of(part)
        if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
            raise RowFault("unsupported", f"{where} has a content part of type {kind!r}: text alone is read")
        parts.append(part["text"])
    return "\n".join(parts)
