"""Plain data: what JSON can hold. Any value as plain data, and which values of a user's row are none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from rayzero.services.schema.printable import HOSTILE, encodable

MAX_DEPTH = 200
"""Of lists and mappings in each other: Python's own reader of JSON gives up at about a thousand."""
MAX_INTEGER_BITS = 14_000
"""Python neither reads nor writes integers of more than 4,300 digits as text."""

Path = tuple[str | int, ...]
Foreign = Callable[[Any, str, Path], Any]
"""From a value that JSON cannot hold, what it is in words, and where it stands, to what is put in its place."""


class NotPlain(ValueError):
    """A value that JSON cannot hold; the message says what it is and where in the whole it stands."""


def is_finite(number: float) -> bool:
    """Whether a float can hold it: 10**400, for which math.isfinite raises, is as good as infinite."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def is_figure(value: Any) -> TypeGuard[float]:
    """Whether what was read, which may be anything, is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)


def plain(value: Any) -> Any:
    """The value as JSON can hold it, whatever it is: NaN and infinity as null, which a strict reader would refuse, and
    what JSON does not know as its text."""
    return _walk(value, (), set(), _scrubbed)


def checked(value: Any) -> Any:
    """The value as it comes back from JSON: numbers and arrays of numpy as Python's, tuples as lists.

    Raises:
        NotPlain: JSON cannot hold it.
    """
    return _walk(value, (), set(), _refused)


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON in one line (or indented), whatever it is. What a terminal would obey is escaped: a file of
    such lines can be looked at with `cat`."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return HOSTILE.sub(_json_escape, text)


def _walk(value: Any, path: Path, above: set[int], foreign: Foreign) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            text = encodable(str.__str__(value))
            return text if text == value else foreign(value, "text with half a character (an unpaired surrogate)", path)
        case int():
            return int(value) if value.bit_length() <= MAX_INTEGER_BITS else foreign(value, "an integer too long", path)
        case float():
            return float(value) if math.isfinite(value) else foreign(value, str(float(value)), path)
        case Mapping() | list() | tuple():
            if id(value) in above or len(above) >= MAX_DEPTH:
                return foreign(value, "lists or mappings nested too deeply", path)
            above.add(id(value))
            if isinstance(value, Mapping):
                found: Any = _mapping(value, path, above, foreign)
            else:
                found = _list(value, path, above, foreign)
            above.discard(id(value))
            return found
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        as_python = value.tolist()
        if type(as_python) is not type(value):  # numpy's long double gives itself
            return _walk(as_python, path, above, foreign)
    return foreign(value, f"a {type(value).__name__}", path)


def _mapping(value: Mapping[Any, Any], path: Path, above: set[int], foreign: Foreign) -> dict[str, Any]:
    found = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else json.dumps(key) if isinstance(key, bool) else key
        if not isinstance(name, str | int | float):
            name = foreign(name, f"a {type(name).__name__} as a key", path)
        name = str(_walk(name, path, above, foreign))
        found[name] = _walk(item, (*path, name), above, foreign)
    return found


def _list(value: Any, path: Path, above: set[int], foreign: Foreign) -> list[Any]:
    kinds = set(map(type, value))
    if (kinds == {float} and all(map(math.isfinite, value))) or (kinds == {int} and _are_short(value)):
        return list(value)  # a completion's tokens and log-probabilities: no step for each of them
    return [_walk(item, (*path, index), above, foreign) for index, item in enumerate(value)]


def _are_short(integers: Any) -> bool:
    return int(max(max(integers), -min(integers))).bit_length() <= MAX_INTEGER_BITS


def _scrubbed(value: Any, what: str, path: Path) -> Any:
    match value:
        case str():
            return encodable(value)
        case float():
            return None
        case int():
            return f"<an integer of {value.bit_length()} bits>"
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "backslashreplace")
        case set() | frozenset():
            return sorted((_text(item) for item in value), key=str)
        case Mapping() | list() | tuple():
            return "…"
    return _text(value)


def _text(value: Any) -> str:
    try:
        return encodable(str(value))
    except Exception:  # a class of a user's may do anything in its __str__
        return f"<{type(value).__name__}>"


def _refused(value: Any, what: str, path: Path) -> Any:
    where = "".join(f"[{step!r}]" for step in path[:8])
    raise NotPlain(f"{what}{f' at {where}' if where else ''}")


def _json_escape(found: re.Match[str]) -> str:
    """Above U+FFFF as JSON has it, in two halves."""
    number = ord(found[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
