"""A row of data -> a Prompt: columns mapped, conversations checked, every refusal naming the row's origin."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayzero.services.schema.config.data import SourceSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt
from rayzero.services.schema.plain import NotPlain, checked
from rayzero.services.schema.printable import encodable, escaped

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row as its source gave it.

    Example: `Row(number=17, origin="data/train.jsonl:17", values={"prompt": "What is 2 + 2?", "answer": "4"})`.
    """

    number: int
    """Its place in the source, from 1: with the source it makes the prompt's id."""
    origin: str
    """Where a user finds it."""
    values: Mapping[str, Any]


Rows = Iterator[Row]


def to_prompt(row: Row, settings: SourceSettings, prompt_id: str, needs_answer: bool = True) -> Prompt:
    """Map the columns of one row.

    Raises:
        RecipeError: a column is missing or holds something else than it should; names the row and the setting.
    """
    columns = settings.columns
    used = {columns.prompt, columns.messages, columns.answer, columns.source}
    return Prompt(
        prompt_id=prompt_id,
        messages=_messages(row, settings),
        answer=_answer(row, settings, needs_answer),
        source=_source(row, settings),
        columns={name: _sendable(row, name) for name in row.values if name not in used},
    )


def _messages(row: Row, settings: SourceSettings) -> tuple[ChatMessage, ...]:
    columns = settings.columns
    content = row.values.get(columns.messages)
    name = columns.messages
    if content is None:
        name, content = columns.prompt, _required(row, columns.prompt, "columns.prompt or columns.messages")
    if isinstance(content, str):
        if not content.strip():
            raise RecipeError(f"{row.origin}: column {name!r} is blank: a prompt needs text")
        content = [{"role": "user", "content": settings.instructions.replace("{prompt}", content)}]
    messages = _conversation(row, name, content)
    if settings.system_prompt is not None and messages[0].role != "system":
        messages = (ChatMessage(role="system", content=settings.system_prompt), *messages)
    return messages


def _conversation(row: Row, name: str, content: Any) -> tuple[ChatMessage, ...]:
    where = f"{row.origin}: column {name!r}"
    if not isinstance(content, list | tuple) or not content:
        raise RecipeError(f"{where} must be text or a list of {{role, content}}, not {_kind(content)}")
    messages = []
    for index, turn in enumerate(content):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
            raise RecipeError(
                f"{where}: message {index} must be {{role, content}} with text as content, not {_kind(turn)}"
            )
        if turn.get("role") not in ROLES:
            raise RecipeError(f"{where}: message {index} has the role {turn.get('role')!r}; known: {', '.join(ROLES)}")
        check_text(row, name, turn["content"])
        messages.append(ChatMessage(role=turn["role"], content=turn["content"]))
    if messages[-1].role != "user":
        raise RecipeError(f"{where}: the last message must be the user's, for the model to answer it")
    return tuple(messages)


def _answer(row: Row, settings: SourceSettings, needed: bool) -> Any:
    name, marker = settings.columns.answer, settings.columns.answer_after
    if name is None or (not needed and name not in row.values):
        return None
    answer = _required(row, name, "columns.answer")
    try:
        answer = checked(answer)
    except NotPlain as error:
        raise RecipeError(
            f"{row.origin}: column {name!r} holds {error}, which JSON cannot: an answer is text, numbers, lists and "
            "mappings; give it as text, or leave the row out"
        ) from None
    if marker is None:
        return answer
    if not isinstance(answer, str) or marker not in answer:
        raise RecipeError(f"{row.origin}: column {name!r} lacks {marker!r}, which columns.answer_after looks for")
    return answer.rpartition(marker)[2].strip()


def _source(row: Row, settings: SourceSettings) -> str:
    name = settings.columns.source
    if name is None:
        return settings.name
    value = _required(row, name, "columns.source")
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{row.origin}: column {name!r} must name the row's source, not {_kind(value)}")
    return check_text(row, name, value)


def check_text(row: Row, name: str, text: str) -> str:
    """The text of a column.

    Raises:
        RecipeError: it holds an unpaired surrogate: no tokenizer takes it, and no file either.
    """
    if (writable := encodable(text)) != text:
        at = next(index for index, (a, b) in enumerate(zip(text, writable, strict=False)) if a != b)
        raise RecipeError(
            f"{row.origin}: column {name!r} holds half a character ({escaped(text[at])}, an unpaired surrogate) at "
            f"{at}, as left by a text that was cut in an emoji; mend or remove the row"
        )
    return text


def _sendable(row: Row, name: str) -> Any:
    """A further column, as it is: custom rewards see dates and decimals as the source gave them."""
    value = row.values[name]
    try:
        checked(value)
    except NotPlain:
        try:
            pickle.dumps(value)
        except Exception as error:
            raise RecipeError(
                f"{row.origin}: column {name!r} holds {_kind(value)}, which cannot be sent to another process "
                f"({type(error).__name__}); leave it out of the row"
            ) from None
    return value


def _required(row: Row, name: str, setting: str) -> Any:
    if row.values.get(name) is None:
        there = ", ".join(repr(column) for column in row.values) or "none"
        problem = "is null" if name in row.values else f"is missing (columns there: {there})"
        raise RecipeError(f"{row.origin}: column {name!r} {problem}; give it, or name another in {setting}")
    return row.values[name]


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
