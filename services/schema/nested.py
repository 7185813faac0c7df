"""A value in nested data by the path to it: `reward_model.ground_truth`, `a.0.b`, also through JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MISSING = object()
"""No such column; `None` is one that is null."""


def find(values: Mapping[str, Any], path: str) -> Any:
    """The value at a path; MISSING where there is none. A column whose own name has dots comes before a nested one."""
    if path in values:
        return values[path]
    if "." not in path:
        return MISSING
    head, _, rest = path.partition(".")
    if head in values:  # nearly always: the first part is the column
        inner = _inner(values[head], rest)
        if inner is not MISSING:
            return inner
    while "." in rest:
        step, _, rest = rest.partition(".")
        head = f"{head}.{step}"
        if head in values and (inner := _inner(values[head], rest)) is not MISSING:
            return inner
    return MISSING


def _inner(value: Any, path: str) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return MISSING
    if isinstance(value, dict):
        return find(value, path)
    if isinstance(value, list | tuple):
        step, dot, rest = path.partition(".")
        if not step.isdecimal() or int(step) >= len(value):
            return MISSING
        return _inner(value[int(step)], rest) if dot else value[int(step)]
    return find(value, path) if isinstance(value, Mapping) else MISSING
