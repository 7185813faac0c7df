"""Outputs against expected outputs, outside the sandbox, on bytes and on values of builtin types."""

from __future__ import annotations

import decimal
import math
import re
from typing import Any

from rayzero.rewards.code.spec import Checker

_FLOAT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_PIECES = re.compile(r"([\[\](){},;:%]+)")
MAX_TOKEN = 10_000
"""A longer token must be equal: it is nothing that a checker should take apart."""
MAX_NUMBER = 1_000
"""As long a number must be equal, digit by digit."""
MAX_DIGITS = 4_000
"""Of an integer that is written out: Python itself refuses longer ones."""
DEFAULT_TOLERANCE = 1e-9
"""Of floats in returned values: summing in another order is no error."""
JUDGE_TOLERANCE = 1e-6
"""What contests allow, relative or absolute."""
MAX_DEPTH = 200
MAX_PAIRWISE = 1000
"""Longer unordered lists are matched by their spelling: pair by pair would take quadratic time."""


def text_equal(output: bytes, expected: str, checker: Checker) -> bool:
    """Whether what the program printed is what was expected."""
    if checker.kind == "exact" and checker.float_tolerance is None:
        return output == expected.encode(errors="surrogatepass")
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return False
    tolerance = _tolerance(checker)
    if tolerance is not None:
        return _tokens_equal(text.split(), expected.split(), tolerance)
    if checker.kind == "tokens":
        return text.split() == expected.split()
    got, wanted = _lines(text), _lines(expected)
    return sorted(got) == sorted(wanted) if checker.kind == "unordered" else got == wanted


def _tolerance(checker: Checker) -> float | None:
    """Of numbers beside each other, where the checker allows any."""
    if checker.float_tolerance is not None:
        return checker.float_tolerance
    return JUDGE_TOLERANCE if checker.kind == "judge" else None


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().replace("\r\n", "\n").split("\n")]


def _tokens_equal(got: list[str], wanted: list[str], tolerance: float) -> bool:
    return len(got) == len(wanted) and all(map(lambda a, b: _token_equal(a, b, tolerance), got, wanted))


def _token_equal(got: str, wanted: str, tolerance: float) -> bool:
    if got == wanted:
        return True
    if len(got) > MAX_TOKEN or len(wanted) > MAX_TOKEN:
        return False
    # [0.5, and [0.50, hold a number between signs; v1.5 and a1.5 do not.
    pieces, other = _PIECES.split(got), _PIECES.split(wanted)
    return len(pieces) == len(other) and all(map(lambda a, b: _piece_equal(a, b, tolerance), pieces, other))


def _piece_equal(got: str, wanted: str, tolerance: float) -> bool:
    if got == wanted:
        return True
    # Integers are exact; nan, inf and 1_0 are Python's spellings, not numbers a checker should read.
    if not any(mark in text for mark in ".eE" for text in (got, wanted)):
        return False
    if max(len(got), len(wanted)) > MAX_NUMBER or not _FLOAT.fullmatch(wanted) or not _FLOAT.fullmatch(got):
        return False
    if _INTEGER.fullmatch(got) or _INTEGER.fullmatch(wanted):
        return _beside_integer(decimal.Decimal(got), decimal.Decimal(wanted), tolerance)
    return _close(float(got), float(wanted), tolerance)


def _beside_integer(got: decimal.Decimal, wanted: decimal.Decimal, tolerance: float) -> bool:
    """Absolutely: a relative tolerance would take 1000000008.0 for 1000000007."""
    with decimal.localcontext(decimal.Context(traps=[])) as context:
        context.prec = len(got.as_tuple().digits) + len(wanted.as_tuple().digits) + 20
        return bool(abs(got - wanted) <= decimal.Decimal(tolerance))


def _close(got: float, wanted: float, tolerance: float) -> bool:
    """Never of what is too large for a float: all of that is one infinity."""
    return (
        math.isfinite(got) and math.isfinite(wanted) and math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    )


def value_equal(got: Any, wanted: Any, checker: Checker) -> bool:
    """Whether a returned value (decoded, of builtin types) is the expected JSON value.

    A tuple is a list; 2 is 2.0; True is not 1; "1" is not 1; a dict's integer keys are spelt as JSON spells them. A
    set is no list unless the checker is `unordered`.
    """
    given = _tolerance(checker)
    tolerance = DEFAULT_TOLERANCE if given is None else given
    if given is not None and checker.kind != "unordered":
        return _equal(got, wanted, tolerance, 0, mixed=True)
    if checker.kind == "unordered" and isinstance(wanted, list) and isinstance(got, (list, tuple, set, frozenset)):
        return _unordered_equal(list(got), wanted, tolerance)
    return _equal(got, wanted, tolerance, 0)


def _equal(got: Any, wanted: Any, tolerance: float, depth: int, *, mixed: bool = False) -> bool:
    """`mixed`: a float is held against an integer with the tolerance, too."""
    if depth > MAX_DEPTH or isinstance(got, bool) is not isinstance(wanted, bool):
        return False
    if isinstance(wanted, (int, float)) and isinstance(got, (int, float)):
        are_floats = isinstance(wanted, float), isinstance(got, float)
        if all(are_floats) or (mixed and any(are_floats)):
            return got == wanted or _near(got, wanted, tolerance)
        return got == wanted
    if isinstance(wanted, list):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(wanted)
            and all(map(lambda a, b: _equal(a, b, tolerance, depth + 1, mixed=mixed), got, wanted))
        )
    if isinstance(wanted, dict):
        return isinstance(got, dict) and _dicts_equal(got, wanted, tolerance, depth, mixed)
    return type(got) is type(wanted) and bool(got == wanted)


def _near(got: float, wanted: float, tolerance: float) -> bool:
    if not all(isinstance(number, int) or math.isfinite(number) for number in (got, wanted)):
        return False
    if isinstance(got, int) or isinstance(wanted, int):
        return _beside_integer(decimal.Decimal(got), decimal.Decimal(wanted), tolerance)
    return _close(got, wanted, tolerance)


def _dicts_equal(got: dict[Any, Any], wanted: dict[str, Any], tolerance: float, depth: int, mixed: bool) -> bool:
    named = {_json_key(key): value for key, value in got.items()}
    return (
        len(named) == len(got)
        and named.keys() == wanted.keys()
        and all(_equal(named[key], value, tolerance, depth + 1, mixed=mixed) for key, value in wanted.items())
    )


def _json_key(key: Any) -> Any:
    if not isinstance(key, int) or isinstance(key, bool):
        return key
    return str(key) if abs(key) < 10**MAX_DIGITS else key  # JSON has no such key either


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
