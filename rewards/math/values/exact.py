"""Exact rational value of a tree, within a budget of bits: what is too large is refused before it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from rayzero.rewards.math.errors import TooLargeError
from rayzero.rewards.math.values.tree import Apply, Node, Num, Symbol

_MAX_BITS = 50_000
_MAX_TOTAL_BITS = 3_000_000
_MAX_FACTORIAL = 4_000


class NotRationalError(Exception):
    """The tree has no rational value that this module finds: a root, a constant, a variable, a division by zero."""


def rational_value(node: Node, variables: Mapping[str, Fraction] | None = None) -> Fraction:
    """Value of the tree at `variables`. Raises NotRationalError, or TooLargeError past the budget."""
    return _Evaluation(variables or {}).value(node)


class _Evaluation:
    def __init__(self, variables: Mapping[str, Fraction]) -> None:
        self._variables = variables
        self._spent_bits = 0

    def value(self, node: Node) -> Fraction:
        if isinstance(node, Num):
            return self._charged(node.value)
        if isinstance(node, Symbol) and node.name in self._variables:
            return self._variables[node.name]
        if not isinstance(node, Apply):
            raise NotRationalError
        if node.op not in _OPERATIONS and node.op != "pow":
            raise NotRationalError
        arguments = [self.value(argument) for argument in node.args]
        if node.op == "pow":
            return self._charged(_power(*arguments))
        if node.op == "mul" and sum(map(_bits, arguments)) > _MAX_BITS:
            raise TooLargeError("a product too large")
        return self._charged(_OPERATIONS[node.op](*arguments))

    def _charged(self, value: Fraction) -> Fraction:
        bits = _bits(value)
        self._spent_bits += bits
        if bits > _MAX_BITS or self._spent_bits > _MAX_TOTAL_BITS:
            raise TooLargeError("numbers too large")
        return value


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NotRationalError
    if base in (0, 1, -1):
        if base == 0 and exponent <= 0:
            raise NotRationalError
        return base if exponent.numerator % 2 or base != -1 else Fraction(1)
    if abs(exponent) * _bits(base) > 2 * _MAX_BITS:
        raise TooLargeError("a power too large")
    return base ** int(exponent)


def _divide(above: Fraction, below: Fraction) -> Fraction:
    if below == 0:
        raise NotRationalError
    return above / below


def _factorial(n: Fraction) -> Fraction:
    if n > _MAX_FACTORIAL:
        raise TooLargeError("a factorial too large")
    if n.denominator != 1 or n < 0:
        raise NotRationalError
    return Fraction(math.factorial(int(n)))


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    _check_counts(n, k)
    return Fraction(math.comb(int(n), int(k)))


def _permutations(n: Fraction, k: Fraction) -> Fraction:
    _check_counts(n, k)
    return Fraction(math.perm(int(n), int(k)))


def _check_counts(n: Fraction, k: Fraction) -> None:
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        raise NotRationalError
    if min(k, abs(n - k)) > _MAX_FACTORIAL or int(n).bit_length() * k > _MAX_BITS * 4:
        raise TooLargeError("a binomial too large")


def _integers(function: Callable[..., int]) -> Callable[..., Fraction]:
    def of(*values: Fraction) -> Fraction:
        if any(value.denominator != 1 for value in values):
            raise NotRationalError
        return Fraction(function(*map(int, values)))

    return of


_OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "add": lambda *terms: sum(terms, Fraction(0)),
    "neg": lambda x: -x,
    "mul": lambda x, y: x * y,
    "div": _divide,
    "fact": _factorial,
    "binom": _binomial,
    "perm": _permutations,
    "abs": abs,
    "floor": lambda x: Fraction(math.floor(x)),
    "ceil": lambda x: Fraction(math.ceil(x)),
    "gcd": _integers(math.gcd),
    "lcm": _integers(math.lcm),
    "max": lambda *values: max(values),
    "min": lambda *values: min(values),
}
