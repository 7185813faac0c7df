import math
from collections.abc import Callable
from typing import Any

import pytest

from rayzero.rewards.code.compare import text_equal, value_equal
from rayzero.rewards.code.spec import Checker

LINES, TOKENS, EXACT, UNORDERED = (Checker(kind=kind) for kind in ("lines", "tokens", "exact", "unordered"))
FLOATS = Checker(float_tolerance=1e-6)


@pytest.mark.parametrize(
    ("output", "expected", "checker", "equal"),
    [
        (b"3\n", "3", LINES, True),
        (b"3  \n\n\n", "3\n", LINES, True),
        (b"1\r\n2\r\n", "1\n2\n", LINES, True),
        (b"\n3\n", "3\n", LINES, False),
        (b"1  2\n", "1 2\n", LINES, False),
        (b"1  2\n", "1 2\n", TOKENS, True),
        (b"1\n2", "1 2", TOKENS, True),
        (b"1 2 3", "1 2", TOKENS, False),
        (b"1 2", "1 2 3", TOKENS, False),
        (b"", "3", TOKENS, False),
        (b"3\n", "3", EXACT, False),
        (b"3", "3", EXACT, True),
        (b"\xff", "\ufffd", LINES, False),
        (b"b\na\n", "a\nb\n", UNORDERED, True),
        (b"b\nb\n", "a\nb\n", UNORDERED, False),
        (b"1.0000001", "1.0", FLOATS, True),
        (b"1.1", "1.0", FLOATS, False),
        (b"1.0", "1", FLOATS, True),
        (b"1", "1.0", FLOATS, True),
        (b"nan", "1.0", FLOATS, False),
        (b"inf", "1e999", FLOATS, False),
        (b"1_0.0", "10.0", FLOATS, False),
        (b"1.0 2.0", "1.0", FLOATS, False),
        ("١.0".encode(), "1.0", FLOATS, False),
    ],
)
def test_text(output: bytes, expected: str, checker: Checker, equal: bool) -> None:
    assert text_equal(output, expected, checker) is equal


@pytest.mark.parametrize(
    ("got", "wanted", "equal"),
    [
        (3, 3, True),
        (3.0, 3, True),
        (3, 3.0, True),
        (True, 1, False),
        (1, True, False),
        (True, True, True),
        ("3", 3, False),
        (3, "3", False),
        (None, None, True),
        (None, 0, False),
        ((1, 2), [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ([1, 2, 3], [1, 2], False),
        ({1, 2}, [1, 2], False),
        ({"a": 1}, {"a": 1}, True),
        ({1: [2]}, {"1": [2]}, True),
        ({1: 2, "1": 2}, {"1": 2}, False),
        ({}, [], False),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        (float("nan"), float("nan"), False),
        (float("inf"), float("inf"), True),
        (2**70, 2**70, True),
        (b"a", "a", False),
        (3 + 0j, 3, False),
    ],
)
def test_values(got: Any, wanted: Any, equal: bool) -> None:
    assert value_equal(got, wanted, LINES) is equal


def test_unordered_values_take_sets_and_tolerate_floats() -> None:
    assert value_equal({3, 1, 2}, [1, 2, 3], UNORDERED)
    assert value_equal([[2], [1]], [[1], [2]], UNORDERED)
    assert not value_equal([1, 1, 2], [1, 2, 2], UNORDERED)
    assert value_equal([0.1 + 0.2, 1], [1, 0.3], UNORDERED)
    assert value_equal(list(range(5000)), list(range(4999, -1, -1)), UNORDERED)


def test_a_nest_too_deep_is_unequal_not_an_error() -> None:
    make: Callable[[], Any] = lambda: __import__("functools").reduce(lambda inner, _: [inner], range(500), [])  # noqa: E731
    assert not value_equal(make(), make(), LINES)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        ("1" * 60_000 + "x", "1.5"),
        ("1e999999999", "1.5"),
        ("-1e-999999999", "0.0"),
        ("." * 5_000, ".5"),
        ("1e5000", "1e4999"),
    ],
)
def test_numbers_without_end_are_unequal_and_raise_nothing(got: str, wanted: str) -> None:
    for checker in (FLOATS, Checker(kind="judge")):
        assert not text_equal(got.encode(), wanted, checker)
        assert not text_equal(wanted.encode(), got, checker)


@pytest.mark.parametrize("kind", ["lines", "unordered", "judge"])
def test_values_without_end_are_unequal_and_raise_nothing(kind: Any) -> None:
    endless = [
        {10**5000: 1},
        {10**6000: 10**6000},
        10**9000,
        [math.nan],
        [math.inf],
        "\ud800",
        {"\ud800": 1},
        {True: 1},
    ]
    for got in endless:
        for wanted in ({"1": 1}, [1.5], 1.5, 1, "x", None):
            assert not value_equal(got, wanted, Checker(kind=kind))


def test_an_expected_output_that_is_no_text_raises_nothing() -> None:
    assert not text_equal(b"1", "\ud800", EXACT)
