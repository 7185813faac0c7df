"""Closeness and order of two constants, for the tolerances that a gold answer or a recipe grants."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath

from rayzero.rewards.math.errors import TooLargeError
from rayzero.rewards.math.values.equality import is_constant
from rayzero.rewards.math.values.numeric import UndefinedError, approximate
from rayzero.rewards.math.values.tree import Node

_DIGITS = 60


def real_value(node: Node) -> Any | None:
    """60 digits of a real constant as an mpmath number; None where it is none."""
    if not is_constant(node):
        return None
    try:
        found = approximate(node, _DIGITS)
    except UndefinedError:
        return None
    return mpmath.re(found.value) if found.is_real else None


def within(first: Node, second: Node, distance: Fraction) -> bool:
    """|first − second| ≤ distance."""
    one, other = real_value(first), real_value(second)
    if one is None or other is None:
        return False
    with mpmath.workdps(_DIGITS):
        limit = mpmath.mpf(distance.numerator) / distance.denominator
        return bool(abs(one - other) <= limit * (1 + mpmath.mpf(10) ** -40))


def within_relative(answer: Node, gold: Node, share: float) -> bool:
    """|answer − gold| ≤ share · |gold|."""
    value = real_value(gold)
    if value is None:
        return False
    try:
        with mpmath.workdps(_DIGITS):
            exact = abs(value) * mpmath.mpf(share)
            return within(answer, gold, Fraction(int(mpmath.floor(exact * mpmath.mpf(10) ** 50)), 10**50))
    except (OverflowError, ValueError) as error:
        raise TooLargeError("too large for a tolerance") from error
