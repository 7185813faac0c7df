"""Whatever a row, a reward or an engine gives can be written; what a user's row may not hold is named."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.services.schema.plain import NotPlain, checked, json_text, plain


class Colour(StrEnum):
    RED = "red"


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


CYCLE: list[Any] = [1]
CYCLE += [CYCLE, CYCLE]

FOREIGN = {
    "surrogate": "half \ud83d",
    "nan": float("nan"),
    "infinity": np.float32("inf"),
    "long integer": 10**5000,
    "decimal": Decimal("1.5"),
    "fraction": Fraction(1, 3),
    "date": date(2026, 11, 30),
    "bytes": b"\xff\x00",
    "set": {3, 1, 2},
    "path": Path("/x"),
    "complex": 1j,
    "object": Rude(),
    "type": int,
    "cycle": CYCLE,
    "depth": nested(5000),
    "array of objects": np.array([Rude(), None], dtype=object),
    "long double": np.longdouble("1.5"),
    "dates of numpy": np.array(["2026-11-30"], dtype="datetime64[D]"),
}
FINE = {
    "text": "a\x00b\x1b 中文 👩",
    "numbers": [1, -2.5, True, None, 2**63],
    "numpy": [np.int64(3), np.float32(0.5), np.bool_(True), np.array([[1, 2]]), np.str_("x")],
    "tuple": (1, (2,)),
    "keys": OrderedDict([(1, "a"), ("b", {2.5: True})]),
    "enum": Colour.RED,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_json_cannot_hold_is_written_all_the_same(name: str) -> None:
    text = json_text({"x": [FOREIGN[name]], FOREIGN[name] if name in ("surrogate", "date", "bytes") else "k": 1})
    text.encode()
    assert json.loads(text)["x"] is not None and "NaN" not in text


@pytest.mark.parametrize("name", FOREIGN)
def test_in_a_users_row_it_is_refused_with_its_place(name: str) -> None:
    with pytest.raises(NotPlain, match=r"at \['tests'\]\[1\]"):
        checked({"tests": [0, FOREIGN[name]]})
    with pytest.raises(NotPlain):
        checked(FOREIGN[name])


@pytest.mark.parametrize("name", FINE)
def test_what_json_can_hold_comes_back_as_it_was_checked(name: str) -> None:
    assert json.loads(json_text(FINE[name])) == checked(FINE[name]) == plain(FINE[name])


def test_values_that_are_not_finite_are_null_and_the_rest_is_kept() -> None:
    assert plain({"a": [1.0, float("nan"), {"b": (np.float64("-inf"), 2)}]}) == {"a": [1.0, None, {"b": [None, 2]}]}
    assert plain(np.array([0.5, np.nan], dtype=np.float32)) == [0.5, None]


LEAVES = st.text(st.characters()) | st.floats() | st.integers() | st.binary() | st.dates()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(LEAVES, inner), max_leaves=20))
def test_a_line_is_one_line_of_strict_json_that_a_terminal_does_not_obey(value: Any) -> None:
    text = json_text(value)
    assert json.loads(text.encode().decode()) == plain(value)
    assert not set(text) & {"\n", "\r", "\x1b", "\x9b", "\x7f", "\u202e", "\u2028", "\ud800", "\x85"}
