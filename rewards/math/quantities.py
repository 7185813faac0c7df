"""Compares quantities: when is a number with its unit the gold answer's?

- A unit may be omitted, not wrong; convertible units compare by value.
- % may be omitted, or be the factor 1/100.
- A rate of money may omit what it is per; degrees equal radians where both are written as such.
"""

from __future__ import annotations

from rayzero.rewards.math.rules import Rules
from rayzero.rewards.math.shapes import is_proper_fraction
from rayzero.rewards.math.values.answer import Scalar
from rayzero.rewards.math.values.equality import is_constant, same_antiderivative, same_expression
from rayzero.rewards.math.values.nearness import within, within_relative
from rayzero.rewards.math.values.renaming import renamings
from rayzero.rewards.math.values.tree import PI, Apply, Node, apply, nodes_of, number
from rayzero.rewards.math.values.units import CURRENCIES, DEGREE, NO_UNIT, PERCENT, is_pound_either_way

_DEGREES, _RADIANS = "angle in degrees", "angle in radians"


class Quantities:
    """Compares numbers with units under one setting."""

    def __init__(self, settings: Rules) -> None:
        self._settings = settings
        self._strict = settings.strictness == "strict"
        self._lenient = settings.strictness == "lenient"

    def same(self, answer: Scalar, gold: Scalar) -> bool:
        """Is `answer` the quantity `gold`? Raises TooLargeError."""
        if answer.goes_on and gold.tolerance is None:  # 0.05… is more than 0.05
            return False
        if answer.unit == PERCENT or gold.unit == PERCENT:
            return self._percent(answer, gold)
        if not answer.unit.dimensions or not gold.unit.dimensions:
            if self._strict and gold.unit.dimensions:
                return False
            return self._value(answer.node, gold) or self._angle(answer, gold)
        if answer.unit.commensurable(gold.unit):
            ratio = answer.unit.factor / gold.unit.factor
            return self._value(answer.node if ratio == 1 else apply("mul", answer.node, number(ratio)), gold)
        if self._same_currency_rate(answer, gold) or is_pound_either_way(answer.unit, gold.unit):
            return self._value(answer.node, gold)
        return self._angle(answer, gold)

    def _angle(self, answer: Scalar, gold: Scalar) -> bool:
        """60° is π/3."""
        if _is_angle(answer, _RADIANS) and _is_angle(gold, _DEGREES):
            return self._value(apply("div", apply("mul", answer.node, number(180)), PI), gold)
        if _is_angle(answer, _DEGREES) and _is_angle(gold, _RADIANS):
            return self._value(apply("div", apply("mul", answer.node, PI), number(180)), gold)
        return False

    def _same_currency_rate(self, answer: Scalar, gold: Scalar) -> bool:
        """`$3 per hour` and `$3`: the rate is omitted in one of them."""
        units = (answer.unit, gold.unit)
        money = [{name: e for name, e in unit.dimensions.items() if name in CURRENCIES} for unit in units]
        rests = [unit.without(CURRENCIES).dimensions for unit in units]
        return bool(money[0]) and money[0] == money[1] and (not rests[0] or not rests[1])

    def _percent(self, answer: Scalar, gold: Scalar) -> bool:
        as_fraction = apply("div", answer.node, number(100))
        if answer.unit == gold.unit:
            return self._value(answer.node, gold)
        if gold.unit == PERCENT:
            if answer.unit != NO_UNIT or self._strict:
                return answer.unit == NO_UNIT and self._value(apply("mul", answer.node, number(100)), gold)
            return self._value(answer.node, gold) or self._value(apply("mul", answer.node, number(100)), gold)
        if gold.unit != NO_UNIT:
            return False
        return self._value(as_fraction, gold) or (not is_proper_fraction(gold.node) and self._value(answer.node, gold))

    def _value(self, node: Node, gold: Scalar) -> bool:
        if same_expression(node, gold.node) or same_antiderivative(node, gold.node):
            return True
        if any(same_expression(one, gold.node) for one in renamings(node, gold.node, in_degrees=gold.unit == DEGREE)):
            return True
        if gold.tolerance is not None and within(node, gold.node, gold.tolerance):
            return True
        if (
            self._lenient
            and gold.last_place is not None
            and gold.last_place < 1
            and within(node, gold.node, gold.last_place / 2)
        ):
            return True
        share = self._settings.relative_tolerance
        return share > 0 and is_constant(node) and is_constant(gold.node) and within_relative(node, gold.node, share)


def _is_angle(scalar: Scalar, unit: str) -> bool:
    """In that unit, as written; without a unit, what holds π or is an inverse function's value is in radians."""
    if unit == _RADIANS and scalar.unit == NO_UNIT:
        return any(
            part == PI or (isinstance(part, Apply) and part.op in ("asin", "acos", "atan"))
            for part in nodes_of(scalar.node)
        )
    return scalar.unit.dimensions == {unit: 1}
