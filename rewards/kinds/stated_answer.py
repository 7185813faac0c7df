"""The answer that a completion states, for rewards that compare text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.base import Case
from rayzero.rewards.math.reading.extract import extract
from rayzero.rewards.math.reading.unboxed import unboxed_answer

if TYPE_CHECKING:
    from rayzero.services.schema.config.reward_component import AnswerFrom


@dataclass(frozen=True, slots=True)
class StatedAnswer:
    """Exactly one of the two is set."""

    text: str | None = None
    problem: str = ""


def stated_answer(case: Case, answer_from: AnswerFrom) -> StatedAnswer:
    """Where the settings say that it stands; a thought that never ended states none."""
    if answer_from == "box":
        found = extract(case.text, prefilled=case.prefilled)
        return StatedAnswer(found.answer, found.problem or "")
    part = answer_part(case.text, prefilled=case.prefilled)
    if part is None:
        return StatedAnswer(problem="the thought never ends: no </think>")
    text = part.strip() if answer_from == "whole" else unboxed_answer(part, answer_from)
    return StatedAnswer(text) if text else StatedAnswer(problem=f"no answer in the form {answer_from}")
