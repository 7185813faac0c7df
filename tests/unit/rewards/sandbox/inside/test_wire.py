import collections
import contextlib
import decimal
import fractions
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.rewards.sandbox.inside import wire

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


@given(VALUES)
def test_values_survive_with_their_types(value: Any) -> None:
    back = wire.decode(wire.loads(wire.dumps(wire.encode(value))))
    assert back == value
    assert repr(type(back)) == repr(type(value))


@pytest.mark.parametrize(
    "value",
    [
        2**5000,
        -(2**64),
        math.inf,
        -math.inf,
        range(3, 9, 2),
        collections.deque([1]),
        frozenset({1}),
        decimal.Decimal("1.50"),
        fractions.Fraction(1, 3),
        bytearray(b"x"),
        "\ud800",
        {"$": "tuple", "v": [1]},
        -0.0,
    ],
)
def test_rarer_values(value: Any) -> None:
    assert wire.decode(wire.loads(wire.dumps(wire.encode(value)))) == value


def test_nan() -> None:
    assert math.isnan(wire.decode(wire.loads(wire.dumps(wire.encode(math.nan)))))


def test_iterators_are_spelt_out() -> None:
    assert list(wire.decode(wire.encode(x * x for x in range(3)))) == [0, 1, 4]
    assert wire.decode(wire.encode(collections.Counter("aab"))) == {"a": 2, "b": 1}


class _Int(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize("value", [object(), [object()], {"a": object()}, len, type, float])
def test_what_is_not_builtin_has_no_spelling(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.encode(value)


def test_of_a_subclass_only_the_builtin_value_crosses() -> None:
    pair = collections.namedtuple("pair", "a b")
    for value, plain in ((_Int(3), 3), (pair(1, _Int(2)), (1, 2)), ({"a": _Int(1)}, {"a": 1})):
        back = wire.decode(wire.encode(value))
        assert type(back) is type(plain)
        assert repr(back) == repr(plain)


def test_too_deep() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(wire.WireError):
        wire.encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"[" * 100_000,
        b"1" * 10_000,
        b"\xff",
        b'{"v":1}',
        b'{"$":"unknown","v":1}',
        b'{"$":1}',
        b'{"$":"int","v":1}',
        b'{"$":"set","v":[[1]]}',
        b'{"$":"dict","v":[1]}',
        b'{"$":"tuple"}',
        b'{"$":"range","v":["a"]}',
        b'{"$":"fraction","v":[1,0]}',
        b'{"$":"float","v":"1"}',
        b'{"$":"bytes","v":"zz"}',
        b'{"$":"decimal","v":"x"}',
        b'{"$":"fraction","v":["1e10000000"]}',
        b'{"$":"fraction","v":["1/3"]}',
        b'{"$":"fraction","v":[0.5]}',
        b'{"$":"fraction","v":[true,2]}',
        b'{"$":"range","v":["1",2]}',
        b'{"$":"decimal","v":' + b'"' + b"1" * 20_000 + b'"}',
    ],
)
def test_malformed_bytes_are_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(wire.loads(data))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.decode(wire.loads(data))
