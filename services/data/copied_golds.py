"""Golds that an answer copied from the prompt equals: an expression worth a number which the prompt states, and a
number worth an expression which it states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from fractions import Fraction

from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Prompt

MOST = 0.5
"""Share of a source's prompts from which on copying pays more often than thinking."""
MAX_DIGITS = 400
"""Of a gold that is looked at: arithmetic on longer ones would take a start's time."""
MAX_ASKED = 2_000
"""Characters of a prompt that are searched for a calculation."""

_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "$": " "})
_EXPRESSION = re.compile(r"[\d\s.+\-*/()]+")
_GOLD = re.compile(r"[-+]?\d+(?:\.\d+)?", re.ASCII)
"""Without an exponent: 1e999999999 has more digits than there is memory."""
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w]|\.\d)")


def check_golds(prompts: Iterable[Prompt], reward: RewardSettings) -> None:
    """Refuse a source judged by value whose prompts mostly state their gold's value.

    Raises:
        RecipeError: names the source, an example and the fix.
    """
    seen: dict[str, list[bool]] = {}
    examples: dict[str, Prompt] = {}
    for prompt in prompts:
        rubric = reward.rubric_for(prompt.source) or {}
        if not any(component.kind == "math" and component.weight for component in rubric.values()):
            continue
        is_copied = states_its_answer(prompt)
        seen.setdefault(prompt.source, []).append(is_copied)
        if is_copied:
            examples.setdefault(prompt.source, prompt)
    for source, hits in seen.items():
        if sum(hits) > MOST * len(hits):
            example = examples[source]
            raise RecipeError(
                f"data source {source!r}: {sum(hits)} of its {len(hits)} golds are expressions worth a number that the "
                f"prompt states, e.g. {example.prompt_id} ({str(example.answer)[:60]!r}), and kind: math compares "
                f"values: the copied number would be rewarded as the solution. Judge the source with kind: custom or "
                f"kind: reasoning_gym, under {source!r} in reward.rubrics"
            )


def states_its_answer(prompt: Prompt) -> bool:
    """Whether the gold is an expression, and its value one of the prompt's numbers."""
    if not isinstance(prompt.answer, str):
        return False
    value = _worth(prompt.answer)
    if value is None:
        return False
    asked = " ".join(message.content for message in prompt.messages if message.role == "user")
    return any(Fraction(number) == abs(value) for number in _NUMBER.findall(asked))


def states_its_calculation(prompt: Prompt) -> bool:
    """Whether the gold is a number, and the prompt's last message states a calculation worth it: `17 + 25` for 42."""
    stated = str(prompt.answer).replace(",", "").strip()
    if len(stated) > MAX_DIGITS or not _GOLD.fullmatch(stated):
        return False
    gold = Fraction(stated)
    asked = prompt.messages[-1].content.translate(_SIGNS)[:MAX_ASKED]
    return any(_worth(found.strip(" \n.+*/").rstrip("-")) == gold for found in _EXPRESSION.findall(asked))


def _worth(gold: str) -> Fraction | None:
    """The value of sums, products and quotients of numbers; None for anything else, plain numbers and fractions too."""
    text = gold.translate(_SIGNS).strip()
    if len(text) > MAX_DIGITS or not _EXPRESSION.fullmatch(text) or "**" in text or "//" in text:
        return None
    try:
        tree = ast.parse(text, mode="eval").body
        operators = [node.op for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
        if not operators or (len(operators) == 1 and isinstance(operators[0], ast.Div)):
            return None
        return _value(tree)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _value(node: ast.AST) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if not isinstance(node, ast.BinOp):
        raise ValueError("no arithmetic")
    left, right = _value(node.left), _value(node.right)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    return left * right if isinstance(node.op, ast.Mult) else left / right
