"""Tools that a recipe names by a word: `calculator`, in the episode's own process, and `python`, in the sandbox."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

MAX_EXPRESSION_CHARS = 1000
MAX_BITS = 4096
"""Of a whole number: 1,233 digits."""

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculator(expression: str) -> str:
    """Calculate the value of an arithmetic expression.

    Args:
        expression: Numbers with + - * / // % ** and parentheses, e.g. "(12 + 5) * 3".
    """
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise ValueError(f"the expression has more than {MAX_EXPRESSION_CHARS} characters")
    try:
        tree = ast.parse(expression.replace("×", "*").replace("÷", "/").strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is no arithmetic expression") from None
    return _written(_value(tree.body))


def python(code: str) -> str:
    """Run a Python program in a sandbox and return what it prints.

    Args:
        code: The program. It sees nothing of earlier calls, and has the standard library alone.
    """
    raise RuntimeError("the environment worker runs it in the sandbox")


BUILT_IN: Mapping[str, str] = {name: f"{__name__}:{name}" for name in ("calculator", "python")}
"""By the word in a recipe, `module:function`."""


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _bounded(_UNARY[type(sign)](_value(operand)))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            try:
                return _bounded(_BINARY[type(sign)](_value(left), _value(right)))
            except ZeroDivisionError:
                raise ValueError("division by zero") from None
    raise ValueError("only numbers, + - * / // % ** and parentheses can be calculated")


def _power(base: int | float, exponent: int | float) -> int | float:
    """Bounded before it is computed: 9**9**9 has 370 million digits."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if base.bit_length() * exponent > MAX_BITS:
            raise ValueError("the number is too large")
        return _bounded(base**exponent)
    try:
        value = base**exponent
    except (ZeroDivisionError, OverflowError):
        raise ValueError("the power has no value") from None
    if isinstance(value, complex):
        raise ValueError("the power has no real value")
    return _bounded(value)


def _bounded(number: int | float) -> int | float:
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise ValueError("the number is too large")
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("the number is too large")
    return number


def _written(number: int | float) -> str:
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return str(number)
