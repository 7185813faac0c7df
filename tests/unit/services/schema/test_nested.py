from __future__ import annotations

from typing import Any

import pytest

from rayzero.services.schema.nested import MISSING, find

VALUES = {
    "a": {"b": [{"c": 1}, {"c": 2}], "none": None},
    "text": '{"x": {"y": [10, 20]}}',
    "list": "[1, 2]",
    "plain": "a.b",
    "with.dot": 5,
    "one.two": {"three": 6},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b.0.c", 1),
        ("a.b.1.c", 2),
        ("a.none", None),
        ("text.x.y.1", 20),
        ("list.0", 1),
        ("with.dot", 5),
        ("one.two.three", 6),
        ("plain", "a.b"),
        ("a.b.2.c", MISSING),
        ("a.b.-1", MISSING),
        ("a.b.c", MISSING),
        ("plain.x", MISSING),
        ("a.none.x", MISSING),
        ("nothing", MISSING),
        ("", MISSING),
    ],
)
def test_paths(path: str, value: Any) -> None:
    assert find(VALUES, path) == value
