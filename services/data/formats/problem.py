"""What every reader of a published format makes of a row: a prompt, an answer spec, and the task that judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["math", "code", "exact", "instructions"]
"""The kind of reward that judges a row. Also its source, where the recipe names no other."""
Values = Mapping[str, Any]


class RowFault(ValueError):
    """A row that makes no prompt. `kind` is what `rayzero data check` counts it by, the text says what is wrong."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A row in rayzero's words."""

    prompt: Any
    """Text, or a conversation."""
    answer: Any
    """The answer spec of the task's reward."""
    task: Task
    solution: str | None = None
    """The row's own reference solution: a program, or a worked answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFormat:
    """One published schema, and how its rows are read."""

    name: str
    about: str
    """Whose schema it is, in a few words."""
    marks: tuple[str, ...]
    """The columns that together only this format has, nested ones dotted: what it is recognized by."""
    reads: frozenset[str]
    """Columns that become the prompt and the answer. The others travel with the prompt."""
    read: Callable[[Values], Problem]
    """A row's values -> its problem. Raises RowFault."""
    later_marks: tuple[str, ...] = ()
    """The marks of a later release, where its columns have other names."""
