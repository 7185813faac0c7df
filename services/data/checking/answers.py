"""Whether an answer spec is one that its reward can judge by. Says why not as a RowFault, before any model is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rayzero.rewards.code.spec import SpecError, parse
from rayzero.rewards.kinds.code_reward import spec_of
from rayzero.rewards.kinds.instruction_rules import RULES, BadInstructionError, follows
from rayzero.rewards.kinds.instructions import instructions_of
from rayzero.rewards.kinds.math_reward import gold_texts
from rayzero.rewards.math.errors import BadGoldError
from rayzero.rewards.math.reading.gold import gold_answers
from rayzero.services.data.formats.columns import kind_of
from rayzero.services.data.formats.problem import RowFault


def check_answer(task: str, answer: Any) -> None:
    """Raise RowFault for an answer that the reward of this task would call an error."""
    check = _CHECKS.get(task)
    if check is not None:
        check(answer)


def _check_math(answer: Any) -> None:
    golds = gold_texts(answer)
    if not golds:
        raise RowFault("wrong type", f"the gold answer must be text, a number or a list of them, not {kind_of(answer)}")
    for gold in golds:
        try:
            gold_answers(gold)
        except BadGoldError as error:
            raise RowFault("empty answer" if "empty" in str(error) else "bad answer", str(error)) from None


def _check_code(answer: Any) -> None:
    spec = spec_of(answer)
    if spec is None:
        raise RowFault("wrong type", f"the answer must be {{language, tests}}, or tests, not {kind_of(answer)}")
    if not spec.get("tests"):
        raise RowFault("no tests", "the answer holds no test: every program would pass")
    try:
        parse(spec)
    except SpecError as error:
        raise RowFault("broken tests", str(error)) from None


def _check_instructions(answer: Any) -> None:
    try:
        for name, arguments in instructions_of(answer):
            if name not in RULES:
                raise RowFault("unsupported", f"no rule is known for the instruction {name!r}")
            follows("any text", name, arguments)  # which only says whether its arguments can be used
    except BadInstructionError as error:
        raise RowFault("broken tests", str(error)) from None


def _check_exact(answer: Any) -> None:
    golds = gold_texts(answer)
    if not golds or not any(gold.strip() for gold in golds):
        raise RowFault("empty answer", "the accepted texts are empty, or no texts at all")


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "math": _check_math,
    "code": _check_code,
    "instructions": _check_instructions,
    "exact": _check_exact,
    "choice": _check_exact,
}
