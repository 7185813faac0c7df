r"""Reads one number or expression with its unit: `\$3.50`, `12 cm^2`, `2 h 30 min`, `about 5`, `50\%`, `3 apples`."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from rayzero.rewards.math.errors import TooLargeError, UnreadableError
from rayzero.rewards.math.reading.number_words import with_digits
from rayzero.rewards.math.reading.parse import parse_expression
from rayzero.rewards.math.reading.text import is_product
from rayzero.rewards.math.values.answer import Scalar
from rayzero.rewards.math.values.exact import NotRationalError, rational_value
from rayzero.rewards.math.values.tree import Num, number, symbols_of
from rayzero.rewards.math.values.units import DEGREE, ORDINAL, Unit, could_be_letters, is_single_letter, parse_unit

_APPROXIMATE = re.compile(
    r"^⟪? *(?:about|approximately|approx\.?|around|roughly|circa|约为?|大约|约等于|近似) *⟫? *(?=\S)", re.IGNORECASE
)
_APPROXIMATE_AFTER = re.compile(r" *⟪? *[(,]?⟪? *(?:approximately|approx\.?|roughly|左右) *⟫? *\)?⟫?$", re.IGNORECASE)
_FOOT = "'"
# `3/4 of the cake`: a share, whatever it is a share of.
_PART_OF = re.compile(
    r"^([\d./ %]*\d%?|\\frac *\{\d+\}\{\d+\}) *⟪? *"
    r"of (?:the|a|an|his|her|their|its) [A-Za-z]{3,}(?: [A-Za-z]{3,})? *⟫?$"
)
_CURRENCY = re.compile(
    r"^(?P<sign>-?) *(?:⟪ *)?(?P<unit>US *\$|\$|€|£|¥|₹|Rs\.?(?= *\d)|USD|"
    r"RMB|CNY|EUR|GBP|INR|人民币)(?: *⟫)? *(?P<rest>.+)$"
)
# Where a unit may begin behind a number. Every such place is tried, so `_MAX_TAILS` bounds them.
_TAIL = re.compile(
    r"(?=/ *(?:⟪|[A-Za-z]{3}|[\u4e00-\u9fff]))|"
    r"(?<![\\A-Za-z⟪])(?=[A-Za-z⟪°%‰$€£¥₹¢Ω(\u4e00-\u9fff]|\\mu|\\Omega|"
    r"\\frac *\{[A-Za-z]+\} *\{[A-Za-z]+(?:\^\{?\d\}?)?\}$)"
)
# 7th, also as 7^{th}.
_ORDINAL = re.compile(r"^(\d+) *(?:\^ *\{? *)?⟪? *(?:st|nd|rd|th) *⟫?(?: *\})?$")
_PART = r"(\d+(?:\.\d+)?|\\frac *\{\d+\}\{\d+\}) *(⟪ *[A-Za-z.]+ *⟫|[A-Za-z]+\.?|[\u4e00-\u9fff]+|°|''|')"
_COMPOUND = re.compile(rf"^{_PART}(?: *,? *(?:⟪? *\band\b *⟫?)? *{_PART})(?: *,? *(?:⟪? *\band\b *⟫?)? *{_PART})?$")
_WORD_AND = re.compile(r",? +and *⟫(?= *\d)")
_ANGLE_MARKS = {"°": Fraction(1), "'": Fraction(1, 60), "''": Fraction(1, 3600)}
# Where `sin 30°` is an argument in degrees, and no number of degrees.
_TRIGONOMETRIC = re.compile(r"\\a?(?:sin|cos|tan|cot|sec|csc)|(?<![A-Za-z])(?:sin|cos|tan|cot)|\\ln|\\log")
_DEGREE_OF_NOTHING = re.compile(r"(?:^|[^\w})\] ]) *°")
_SEVERAL_DEGREES = re.compile(r"^[^⟪°]*°(?! *[CF]\b)[^⟪]*°(?! *[CF]\b)[^⟪]*$")
_MAX_TAILS = 24
_DECIMAL = re.compile(r"^-? *(\d*)\.?(\d*)(?: *\* *10 *\^ *\{? *(-?\d+) *\}?)?…?$")


def read_quantity(text: str, *, attached: bool = False) -> Scalar:
    """Read the whole text. `attached`: `5m` is five metres, not 5·m. Raises UnreadableError."""
    marked = _APPROXIMATE.match(text)
    if marked:
        text = text[marked.end() :]
    elif (marked := _APPROXIMATE_AFTER.search(text)) is not None:
        text = text[: marked.start()]
    if text.startswith("≈"):
        marked, text = re.match("", text), text[1:].strip()
    text = _PART_OF.sub(r"\1", text)
    text = re.sub(r"^(\d+(?:\.\d+)?) *(''?)$", lambda mark: f"{mark[1]} {'ft' if mark[2] == _FOOT else 'in'}", text)
    scalar = read_compound(text) or _with_currency(text) or _with_unit(with_digits(text), attached)
    goes_on = text.endswith("…")
    if marked is not None or (goes_on and scalar.tolerance is None):
        return _approximate(scalar, text)
    return scalar


def read_compound(text: str) -> Scalar | None:
    """`2 hours 30 minutes`, `5 ft 3 in`, `30°15'`: falling units, each part less than one of the unit before."""
    match = _COMPOUND.match(_WORD_AND.sub(" ⟫", text))
    if match is None:
        return None
    pairs = [(match[i], match[i + 1]) for i in (1, 3, 5) if match[i]]
    units = [_angle_or_unit(unit, pairs[0][1]) for _, unit in pairs]
    total, previous = Fraction(0), None
    for (literal, _), unit in zip(pairs, units, strict=True):
        if (
            unit is None
            or unit.noun
            or not (previous is None or (unit.commensurable(previous) and unit.factor < previous.factor))
        ):
            return None
        value = rational_value(parse_expression(literal)) * unit.factor
        if previous is not None and value >= previous.factor:
            return None
        total, previous = total + value, unit
    first = units[0]
    assert first is not None
    return Scalar(number(total / first.factor), first)


def _angle_or_unit(text: str, first: str) -> Unit | None:
    if first == "°":
        return Unit(DEGREE.dimensions, _ANGLE_MARKS[text]) if text in _ANGLE_MARKS else None
    if text in ("'", "''"):
        return parse_unit("ft" if text == "'" else "in") if first == "'" else None
    return parse_unit(text, allow_noun=False)


def _with_currency(text: str) -> Scalar | None:
    match = _CURRENCY.match(text)
    if match is None:
        return None
    unit = parse_unit(match["unit"].replace(" ", ""), allow_noun=False)
    assert unit is not None
    scalar = _with_unit(with_digits(match["rest"]), False)
    if scalar.unit.dimensions and not scalar.unit.noun and scalar.unit != unit:
        joined = scalar.unit.times(unit) if -1 in scalar.unit.dimensions.values() else None
        if joined is None:
            raise UnreadableError("two units")
        unit = joined
    node = parse_expression("-1") if match["sign"] else None
    from rayzero.rewards.math.values.tree import apply

    return Scalar(apply("mul", node, scalar.node) if node else scalar.node, unit)


def _with_unit(text: str, attached: bool) -> Scalar:
    if match := _ORDINAL.match(text):
        return Scalar(number(int(match[1])), ORDINAL)
    try:
        bare = _bare(text)
    except TooLargeError:
        raise
    except UnreadableError as error:
        bare, problem = None, error
    if _SEVERAL_DEGREES.search(text) and (degrees := _with_degrees(text)):
        return degrees  # before the last sign is taken for the unit of all: the others would be factors of π/180
    split = _split_unit(text, attached)
    if split is not None:
        return split
    if degrees := _with_degrees(text):
        return degrees
    if bare is None:
        raise problem
    return bare


def _bare(text: str) -> Scalar:
    if text.endswith("…") and (match := _DECIMAL.match(text)) and match[2]:
        try:
            return Scalar(parse_expression(text), tolerance=_last_place(text), last_place=_last_place(text))
        except UnreadableError:
            place = _last_place(text)
            return Scalar(parse_expression(text.rstrip("…")), tolerance=place, last_place=place, goes_on=True)
    return Scalar(parse_expression(text), last_place=_last_place(text))


def _with_degrees(text: str) -> Scalar | None:
    """`180° − 2x`: the sign does not matter, except in an angle that a function takes, or beside π."""
    if "°" not in text or _DEGREE_OF_NOTHING.search(text) or _TRIGONOMETRIC.search(text) or "pi" in text:
        return None
    return Scalar(parse_expression(text.replace("°", " ")), DEGREE)


def _split_unit(text: str, attached: bool) -> Scalar | None:
    """The longest tail that is a unit behind a head that is an expression."""
    for match in list(_TAIL.finditer(text))[:_MAX_TAILS]:
        head, tail = text[: match.start()], text[match.start() :]
        if not head.strip() or not re.search(r"[0-9A-Za-z})\]!|⌋⌉…] *$", head):
            continue
        unit = _unit_of(head, tail, attached)
        if unit is None:
            continue
        try:
            scalar = _bare(head.strip())
        except TooLargeError:
            raise
        except UnreadableError:
            continue
        if isinstance(scalar.node, Num) or not (unit.noun or is_single_letter(tail)) or not symbols_of(scalar.node):
            return replace(scalar, unit=unit)
    return None


def _unit_of(head: str, tail: str, attached: bool) -> Unit | None:
    """The unit that `tail` is after `head`, unless it could as well be letters that multiply."""
    spaced = head.endswith(" ") or tail[0] == "⟪"
    latin = tail[0].isascii() and tail[0].isalpha()
    if (
        latin
        and not spaced
        and could_be_letters(tail)
        and not (attached and is_single_letter(tail) and head[-1].isdigit())
    ):
        return None
    unit = parse_unit(tail, allow_noun=spaced or not latin)
    if unit is None or (unit.noun and latin and is_product(tail.strip())):
        return None
    if unit.dimensions == DEGREE.dimensions and tail[0] == "°" and _TRIGONOMETRIC.search(head):
        return None
    return unit


def _approximate(scalar: Scalar, text: str) -> Scalar:
    place = scalar.last_place
    if place is None:
        try:
            place = Fraction(1) if rational_value(scalar.node).denominator == 1 else None
        except NotRationalError:
            place = None
    if place is None:
        return scalar
    return Scalar(scalar.node, scalar.unit, place if text.endswith("…") else place / 2, place)


def _last_place(text: str) -> Fraction | None:
    match = _DECIMAL.match(text.strip())
    if match is None or not (match[1] or match[2]) or len(match[3] or "") > 4:
        return None
    return Fraction(10) ** (int(match[3] or 0) - len(match[2]))
