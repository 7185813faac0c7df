r"""Number literals: decimals, grouped thousands, scientific notation, repeating decimals and other bases."""

from __future__ import annotations

import re
from fractions import Fraction

from rayzero.rewards.math.errors import TooLargeError, UnreadableError

_MAX_DIGITS = 1_000
_MAX_EXPONENT = 2_000
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "twelve": 12, "sixteen": 16, "bin": 2, "oct": 8, "dec": 10, "hex": 16}  # fmt: skip

_NUMBER = re.compile(
    r"(?P<whole>\d{1,3}(?: \d{3})+(?!\d| */| *\\frac)|\d+)?"
    r"(?:\.(?P<decimals>\d*)"
    r"(?:\\(?:overline|bar) *(?:\{ *(?P<bar>\d+) *\}|(?P<digit>\d))|"
    r"(?P<dots>(?:\\dot *\{? *\d *\}?) *(?:\d* *\\dot *\{? *\d *\}?)?)"
    r"|\((?P<paren>\d+)\))?)?"
    r"(?P<more>…)?"
    r"(?:[eE](?P<exponent>[+-]?\d+)(?![\d.A-Za-z]))?"
)
_WITH_BASE = re.compile(
    r"\(?(?P<digits>\d{1,4}(?: \d{3,4})+(?=\)? *_)|\d[\dA-Fa-f]*(?:\.[\dA-Fa-f]+)?"
    r"|[A-F]{2,}|[A-F][\dA-F]*\d[\dA-F]*|⟪ *[\dA-Fa-f]+ *⟫)\)?"
    r" *_ *(?:(?P<short>\d+)|\{ *\(?⟪? *(?P<long>\d+|[a-z]+) *⟫?\)? *\}|⟪ *(?P<word>[a-z]+) *⟫)"
)
_PREFIXED = re.compile(r"0(?P<kind>[xXbBoO])(?P<digits>[0-9A-Fa-f]+)(?![0-9A-Za-z])")


def match_number(text: str, position: int) -> tuple[Fraction, int] | None:
    """Read the number literal at `position`; returns its exact value and where the text goes on."""
    prefixed = _PREFIXED.match(text, position)
    if prefixed:
        base = {"x": 16, "b": 2, "o": 8}[prefixed["kind"].lower()]
        return in_base(prefixed["digits"], base), prefixed.end()
    based = _WITH_BASE.match(text, position)
    if based:
        return in_base(based["digits"].strip("⟪⟫ ").replace(" ", ""), _base(based)), based.end()
    match = _NUMBER.match(text, position)
    if match is None or (
        match["whole"] is None and not any(match[part] for part in ("decimals", "bar", "digit", "dots", "paren"))
    ):
        return None
    return _value(match), match.end()


def in_base(digits: str, base: int) -> Fraction:
    """Value of `digits` in `base` (2 … 36). Raises UnreadableError for a digit that the base lacks."""
    if not 2 <= base <= 36 or len(digits) > _MAX_DIGITS:
        raise UnreadableError(f"no base {base}")
    whole, _, part = digits.lower().partition(".")
    value = 0
    for char in whole + part:
        digit = _DIGITS.index(char)
        if digit >= base:
            raise UnreadableError(f"{char} is no digit in base {base}")
        value = value * base + digit
    return Fraction(value, base ** len(part))


def repeating(whole: str, decimals: str, period: str) -> Fraction:
    """Value of whole.decimals(period): 0.1(6) is 1/6."""
    if len(whole) + len(decimals) + len(period) > _MAX_DIGITS:
        raise TooLargeError("too many digits")
    head = int((whole or "0") + decimals)
    return (head + Fraction(int(period), 10 ** len(period) - 1)) / Fraction(10 ** len(decimals))


def period_of(decimals: str) -> tuple[str, str] | None:
    """Split `1666` (followed by dots) into ("1", "6"): a period is seen at least twice, a single digit three times."""
    for length in range(1, len(decimals) // 2 + 1):
        period = decimals[-length:]
        if decimals.endswith(period * (3 if length == 1 else 2)):
            head = decimals
            while head.endswith(period):
                head = head[:-length]
            return head, period
    return None


def _base(match: re.Match[str]) -> int:
    text = match["short"] or match["long"] or match["word"]
    if text in _BASE_NAMES:
        return _BASE_NAMES[text]
    if not text.isdigit() or len(text) > 2:
        raise UnreadableError(f"no base {text}")
    return int(text)


def _value(match: re.Match[str]) -> Fraction:
    whole, decimals = (match["whole"] or "").replace(" ", ""), match["decimals"] or ""
    if len(whole) + len(decimals) > _MAX_DIGITS:
        raise TooLargeError("too many digits")
    dotted = re.sub(r"\D", "", (match["dots"] or "").replace("\\dot", ""))
    period = match["bar"] or match["digit"] or match["paren"] or dotted
    if match["paren"] and whole != "0":
        raise UnreadableError("ambiguous: repeating decimal or product")
    if match["more"] and not period:
        split = period_of(decimals)
        if split is None:
            raise UnreadableError("a decimal that goes on is not exact")
        decimals, period = split
    value = repeating(whole, decimals, period) if period else Fraction(f"{whole or 0}.{decimals or 0}")
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        raise TooLargeError("exponent too large")
    return value * Fraction(10**exponent) if exponent >= 0 else value / Fraction(10**-exponent)
