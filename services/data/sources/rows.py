"""A row of data -> a Prompt: columns mapped, conversations checked, every refusal naming the row's origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayzero.services.schema.config.data import SourceSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt

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
        columns={name: value for name, value in row.values.items() if name not in used},
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
        messages.append(ChatMessage(role=turn["role"], content=turn["content"]))
    if messages[-1].role != "user":
        raise RecipeError(f"{where}: the last message must be the user's, for the model to answer it")
    return tuple(messages)


def _answer(row: Row, settings: SourceSettings, needed: bool) -> Any:
    name, marker = settings.columns.answer, settings.columns.answer_after
    if name is None or (not needed and name not in row.values):
        return None
    answer = _required(row, name, "columns.answer")
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
    return value


def _required(row: Row, name: str, setting: str) -> Any:
    if row.values.get(name) is None:
        there = ", ".join(repr(column) for column in row.values) or "none"
        problem = "is null" if name in row.values else f"is missing (columns there: {there})"
        raise RecipeError(f"{row.origin}: column {name!r} {problem}; give it, or name another in {setting}")
    return row.values[name]


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
