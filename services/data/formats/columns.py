"""What a row must hold: text, parsed JSON, gold answers; what is wrong with it is a RowFault that names the column."""

from __future__ import annotations

import json
import math
from typing import Any

from rayzero.services.data.formats.problem import RowFault, Values
from rayzero.services.schema.nested import MISSING, find


def required(values: Values, path: str) -> Any:
    """The value at a path. Raises RowFault where it is missing or null."""
    value = find(values, path)
    if value is MISSING:
        there = ", ".join(repr(column) for column in values) or "none"
        raise RowFault("missing column", f"column {path!r} is missing (columns there: {there})")
    if value is None:
        raise RowFault("null", f"column {path!r} is null")
    return value


def text(values: Values, path: str) -> str:
    """The text at a path. Raises RowFault where it is missing, null, blank or no text."""
    value = required(values, path)
    if not isinstance(value, str):
        raise RowFault("wrong type", f"column {path!r} must be text, not {kind_of(value)}")
    if not value.strip():
        raise RowFault("blank", f"column {path!r} is blank")
    return value


def optional_text(values: Values, path: str) -> str:
    """The text at a path; empty where it is missing, null or something else."""
    value = find(values, path)
    return value if isinstance(value, str) else ""


def parsed(values: Values, path: str) -> Any:
    """The list or object at a path, or the one that the JSON text there spells. Raises RowFault."""
    value = required(values, path)
    if isinstance(value, str):
        return parsed_text(value, f"column {path!r}")
    return value


def parsed_text(value: str, what: str) -> Any:
    """What JSON text spells. Raises RowFault."""
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise RowFault("broken JSON", f"{what} is no JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise RowFault("broken JSON", f"{what} is no JSON that can be read: {error}") from None


def gold(value: Any, what: str) -> Any:
    """A gold answer: text, a number, or a list of which each is right. Raises RowFault."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        value = _listed(value)  # as Skywork-OR1 spells a list of answers
    if isinstance(value, list | tuple):
        if not value:
            raise RowFault("empty answer", f"{what} is an empty list")
        return [gold(each, what) for each in value]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowFault("wrong type", f"{what} must be text or a number, not {kind_of(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowFault("wrong type", f"{what} is {value}")
    if isinstance(value, str) and not value.strip():
        raise RowFault("empty answer", f"{what} is empty")
    return value


def _listed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def kind_of(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
