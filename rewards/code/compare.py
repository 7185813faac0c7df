"""Outputs against expected outputs, outside the sandbox, on bytes and on values of builtin types."""

from __future__ import annotations

import math
import re
from typing import Any

from rewards.code.spec import Checker

_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DEFAULT_TOLERANCE = 1e-9
"""Of floats in returned values: summing in another order is no error."""
MAX_DEPTH = 200
MAX_PAIRWISE = 1000
"""Longer unordered lists are matched by their spelling: pair by pair would take quadratic time."""


def text_equal(output: bytes, expected: str, checker: Checker) -> bool:
    """Whether what the program printed is what was expected."""
    if checker.kind == "exact" and checker.float_tolerance is None:
        return output == expected.encode()
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return False
    if checker.float_tolerance is not None:
        return _tokens_equal(text.split(), expected.split(), checker.float_tolerance)
    if checker.kind == "tokens":
        return text.split() == expected.split()
    got, wanted = _lines(text), _lines(expected)
    return sorted(got) == sorted(wanted) if checker.kind == "unordered" else got == wanted


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().replace("\r\n", "\n").split("\n")]


def _tokens_equal(got: list[str], wanted: list[str], tolerance: float) -> bool:
    return len(got) == len(wanted) and all(map(lambda a, b: _token_equal(a, b, tolerance), got, wanted))


def _token_equal(got: str, wanted: str, tolerance: float) -> bool:
    if got == wanted:
        return True
    # Integers are exact; nan, inf and 1_0 are Python's spellings, not numbers a checker should read.
    if not any(mark in wanted for mark in ".eE") or not _FLOAT.fullmatch(wanted) or not _FLOAT.fullmatch(got):
        return False
    return _close(float(got), float(wanted), tolerance)


def _close(got: float, wanted: float, tolerance: float) -> bool:
    return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)


def value_equal(got: Any, wanted: Any, checker: Checker) -> bool:
    """Whether a returned value (decoded, of builtin types) is the expected JSON value.

    A tuple is a list; 2 is 2.0; True is not 1; "1" is not 1; a dict's integer keys are spelt as JSON spells them. A
    set is no list unless the checker is `unordered`.
    """
    tolerance = DEFAULT_TOLERANCE if checker.float_tolerance is None else checker.float_tolerance
    if checker.kind == "unordered" and isinstance(wanted, list) and isinstance(got, (list, tuple, set, frozenset)):
        return _unordered_equal(list(got), wanted, tolerance)
    return _equal(got, wanted, tolerance, 0)


def _equal(got: Any, wanted: Any, tolerance: float, depth: int) -> bool:
    if depth > MAX_DEPTH or isinstance(got, bool) is not isinstance(wanted, bool):
        return False
    if isinstance(wanted, (int, float)) and isinstance(got, (int, float)):
        if isinstance(wanted, float) and isinstance(got, float):
            return got == wanted or _close(got, wanted, tolerance)
        return got == wanted
    if isinstance(wanted, list):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(wanted)
            and all(map(lambda a, b: _equal(a, b, tolerance, depth + 1), got, wanted))
        )
    if isinstance(wanted, dict):
        return isinstance(got, dict) and _dicts_equal(got, wanted, tolerance, depth)
    return type(got) is type(wanted) and bool(got == wanted)


def _dicts_equal(got: dict[Any, Any], wanted: dict[str, Any], tolerance: float, depth: int) -> bool:
    named = {_json_key(key): value for key, value in got.items()}
    return (
        len(named) == len(got)
        and named.keys() == wanted.keys()
        and all(_equal(named[key], value, tolerance, depth + 1) for key, value in wanted.items())
    )


def _json_key(key: Any) -> Any:
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else key


def _unordered_equal(got: list[Any], wanted: list[Any], tolerance: float) -> bool:
    if len(got) != len(wanted):
        return False
    if len(got) > MAX_PAIRWISE:
        return sorted(map(repr, got)) == sorted(map(repr, wanted))
    rest = list(wanted)
    for value in got:
        match = next((index for index, other in enumerate(rest) if _equal(value, other, tolerance, 1)), None)
        if match is None:
            return False
        del rest[match]
    return True
