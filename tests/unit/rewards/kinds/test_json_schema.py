"""What the package that validates JSON raises for, or takes minutes for: the verdict is ours all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rayzero.rewards.kinds.json_schema import validator

SAME: list[Any] = [1, True, [1], [True], {"a": 1}, {"a": True}, {"a": 1, "b": 1}, "1", None, "", [], {}, 0, False, [[]]]


def judged(schema: Any, text: str) -> tuple[bool, str]:
    """Whether it is right, and the fault of the row."""
    right, _, fault = validator(None)([schema, text])
    return right, fault


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"multipleOf": 0.5}, "1e400"),
        ({"multipleOf": 0.5}, "1" * 400),
        ({"format": "regex"}, '"a{99999999999999999999}"'),
        ({"properties": {"a": {"multipleOf": 0.1}}}, '{"a": -1e999}'),
    ],
)
def test_what_the_package_raises_for_is_wrong_and_no_error(schema: Any, text: str) -> None:
    assert judged(schema, text) == (False, "")


def test_a_schema_that_cannot_be_used_is_no_fault_of_the_answer() -> None:
    for schema in ({"$ref": "#"}, {"$ref": "http://127.0.0.1:9/x"}, {"pattern": "("}):
        assert judged(schema, '"a"')[1], schema


def test_items_are_compared_in_linear_time_and_as_the_standard_has_it() -> None:
    many = [{"a": [number]} for number in range(20_000)]
    assert judged({"uniqueItems": True}, json.dumps(many)) == (True, "")
    assert judged({"uniqueItems": True}, json.dumps([*many, {"a": [7.0]}])) == (False, "")
    assert judged({"uniqueItems": True}, json.dumps(SAME)) == (True, "")
    assert judged({"uniqueItems": False}, "[1, 1]") == (True, "")
    for other in SAME:
        assert judged({"uniqueItems": True}, json.dumps([*SAME, other])) == (False, "")
