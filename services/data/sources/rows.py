"""A row of data -> a Prompt: columns mapped, or a published format read, every refusal naming the row's origin."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rayzero.services.data.formats.columns import kind_of, parsed_text
from rayzero.services.data.formats.columns import required as required_column
from rayzero.services.data.formats.problem import Problem, RowFault, Values
from rayzero.services.data.formats.registry import FORMATS
from rayzero.services.data.sources.conversations import check_text, conversation
from rayzero.services.schema.config.data import SourceSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt
from rayzero.services.schema.nested import MISSING, find
from rayzero.services.schema.plain import NotPlain, checked


class Row(NamedTuple):
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
    """Map the columns of one row, or read it in the source's format.

    Raises:
        RecipeError: a column is missing or holds something else than it should; names the row and the setting.
    """
    try:
        return mapped(row, settings, prompt_id, needs_answer)
    except RowFault as fault:
        raise RecipeError(f"{row.origin}: {fault}") from None


def mapped(row: Row, settings: SourceSettings, prompt_id: str, needs_answer: bool = True) -> Prompt:
    """As `to_prompt`; what is wrong with the row is a RowFault, which does not name it."""
    if settings.format is not None:
        return _published(row, settings, prompt_id, FORMATS[settings.format].read(row.values))
    columns = settings.columns
    used = {columns.prompt, columns.messages, columns.answer, columns.source}
    return Prompt(
        prompt_id=prompt_id,
        messages=_asked(row, settings),
        answer=_answer(row, settings, needs_answer),
        source=_source(row, settings, settings.name),
        columns={name: _sendable(row, name) for name in row.values if name not in used},
    )


def plain_questions(settings: SourceSettings) -> Callable[[Values], tuple[str, str] | None] | None:
    """Reads the question and the answer of rows that are nothing but two texts: what `mapped` makes of them, at a fifth
    of the time. It gives None for every other row. None where the settings ask for more than two columns."""
    columns, instructions = settings.columns, settings.instructions
    if settings.format or columns.answer is None or columns.answer_after or columns.source or "." in columns.messages:
        return None
    prompt, messages, answer = columns.prompt, columns.messages, columns.answer
    as_it_is = instructions == "{prompt}"

    def read(values: Values) -> tuple[str, str] | None:
        question, gold = values.get(prompt), values.get(answer)
        if not isinstance(question, str) or not isinstance(gold, str) or messages in values:
            return None
        if not question or question.isspace() or not _is_text(question, gold):
            return None
        return question if as_it_is else instructions.replace("{prompt}", question), gold

    return read


def _is_text(*texts: str) -> bool:
    """None of them holds half a character."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _published(row: Row, settings: SourceSettings, prompt_id: str, problem: Problem) -> Prompt:
    assert settings.format is not None
    reads = FORMATS[settings.format].reads
    return Prompt(
        prompt_id=prompt_id,
        messages=_messages(settings, "prompt", problem.prompt),
        answer=problem.answer,
        source=_source(row, settings, problem.task if settings.name == "default" else settings.name),
        columns={name: _sendable(row, name) for name in row.values if name not in reads},
    )


def _asked(row: Row, settings: SourceSettings) -> tuple[ChatMessage, ...]:
    columns = settings.columns
    content = find(row.values, columns.messages)
    if content is None or content is MISSING:
        content = _required(row, columns.prompt, "columns.prompt or columns.messages")
        return _messages(settings, columns.prompt, content)
    if isinstance(content, str) and content.lstrip().startswith("["):
        content = parsed_text(content, f"column {columns.messages!r}")
    return _messages(settings, columns.messages, content)


def _messages(settings: SourceSettings, name: str, content: Any) -> tuple[ChatMessage, ...]:
    if isinstance(content, str):
        if not content.strip():
            raise RowFault("blank", f"column {name!r} is blank: a prompt needs text")
        text = settings.instructions.replace("{prompt}", content)
        text = check_text(f"column {name!r}", text)
        messages: tuple[ChatMessage, ...] = (ChatMessage(role="user", content=text),)
    else:
        messages = conversation(name, content)
    if settings.system_prompt is not None and messages[0].role != "system":
        return (ChatMessage(role="system", content=settings.system_prompt), *messages)
    return messages


def _answer(row: Row, settings: SourceSettings, needed: bool) -> Any:
    name, marker = settings.columns.answer, settings.columns.answer_after
    if name is None or (not needed and find(row.values, name) is MISSING):
        return None
    try:
        answer = checked(_required(row, name, "columns.answer (null where the reward needs no answer)"))
    except NotPlain as error:
        raise RowFault(
            "wrong type",
            f"column {name!r} holds {error}, which JSON cannot: an answer is text, numbers, lists and mappings; give "
            "it as text, or leave the row out",
        ) from None
    if marker is None:
        return answer
    if not isinstance(answer, str) or marker not in answer:
        raise RowFault("wrong type", f"column {name!r} lacks {marker!r}, which columns.answer_after looks for")
    return answer.rpartition(marker)[2].strip()


def _source(row: Row, settings: SourceSettings, otherwise: str) -> str:
    name = settings.columns.source
    if name is None:
        return otherwise
    value = _required(row, name, "columns.source")
    if not isinstance(value, str) or not value:
        raise RowFault("wrong type", f"column {name!r} must name the row's source, not {kind_of(value)}")
    return check_text(f"column {name!r}", value)


def _sendable(row: Row, name: str) -> Any:
    """A further column, as it is: custom rewards see dates and decimals as the source gave them."""
    value = row.values[name]
    try:
        checked(value)
    except NotPlain:
        try:
            pickle.dumps(value)
        except Exception as error:
            raise RowFault(
                "wrong type",
                f"column {name!r} holds {kind_of(value)}, which cannot be sent to another process "
                f"({type(error).__name__}); leave it out of the row",
            ) from None
    return value


def _required(row: Row, name: str, setting: str) -> Any:
    try:
        return required_column(row.values, name)
    except RowFault as fault:
        raise RowFault(fault.kind, f"{fault}; give it, or name another in {setting}") from None
