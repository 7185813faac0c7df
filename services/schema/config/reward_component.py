"""What the settings of every reward have in common: its weight, its gate, what its child processes may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rayzero.services.schema.config.base import Section

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

AnswerFrom = Literal["box", "answer_tags", "answer_line", "final_answer", "whole"]
"""Where an answer stands: in the last box, in <answer> tags, in a line `Answer: …`, in the sentence "The final answer
is …", or all that follows the thought."""


class Component(Section):
    """One named reward of a rubric. The key it stands under is its name in verdicts and metrics."""

    weight: float = 1.0
    """What its score is multiplied by in the sum. 0: only watched; its errors do not spoil the verdict."""
    gate: Names = ()
    """It counts only where every component named here gave its full score. Its own score is kept either way."""


class ChildLimits(Section):
    """What one child process may use for one item before it is killed and replaced."""

    cpu_s: float | None = Field(default=None, gt=0, le=3600)
    """CPU seconds: the same on a quiet machine and on a busy one. Empty: only the deadline counts."""
    deadline_s: float = Field(default=10.0, gt=0, le=3600)
    """Wall seconds from the start of the work, in C code too."""
    memory_bytes: int = Field(default=2 * 2**30, ge=32 * 2**20)
    """What a child may allocate."""
