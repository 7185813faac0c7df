"""What a unit denotes: dimensions and an exact factor; nouns are dimensions of their own."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rayzero.rewards.math.values.units import CURRENCIES, NO_UNIT, Unit, parse_unit


@pytest.mark.parametrize(
    ("text", "dimensions", "factor"),
    [
        ("km/h", {"length": 1, "time": -1}, Fraction(5, 18)),
        ("m/s^2", {"length": 1, "time": -2}, Fraction(1)),
        ("cm^2", {"length": 2}, Fraction(1, 10**4)),
        ("square feet", {"length": 2}, Fraction(381, 1250) ** 2),
        ("kWh", {"mass": 1, "length": 2, "time": -2}, Fraction(3_600_000)),
        ("minutes", {"time": 1}, Fraction(60)),
        ("公里", {"length": 1}, Fraction(1000)),
        ("%", {"percent": 1}, Fraction(1)),
        ("cents", {"dollar": 1}, Fraction(1, 100)),
    ],
)
def test_a_units_value_is_exact(text: str, dimensions: dict[str, int], factor: Fraction) -> None:
    unit = parse_unit(text)
    assert unit is not None and (dict(unit.dimensions), unit.factor) == (dimensions, factor)


def test_apples_equal_apples_and_no_metres() -> None:
    apples, apple, pears, metres = (parse_unit(text) for text in ("apples", "apple", "pears", "m"))
    assert apples is not None and apples.noun and apple is not None and pears is not None and metres is not None
    assert apples.commensurable(apple)
    assert not apples.commensurable(pears) and not apples.commensurable(metres)
    assert parse_unit("apples", allow_noun=False) is None


def test_a_currency_may_be_left_out() -> None:
    unit = parse_unit("$/hour")
    assert unit is not None
    assert unit.without(CURRENCIES).dimensions == {"time": -1}


def test_dimensions_that_cancel_are_gone() -> None:
    metre = Unit({"length": 1}, Fraction(1, 100))
    assert metre.times(metre, -1) == NO_UNIT
    assert metre.times(metre).factor == Fraction(1, 10_000)


def test_what_is_measured_must_be_the_same_where_both_say_it() -> None:
    flour, sugar, cups = (Unit({"gallon": 1}, substance=name) for name in ("flour", "sugar", ""))
    assert not flour.commensurable(sugar)
    assert flour.commensurable(cups)
