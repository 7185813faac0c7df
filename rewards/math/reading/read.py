r"""Reads an answer's text into one of the kinds of answer.py. Always succeeds: what is no mathematics is `Words`.

The readers are tried in the order of `_readers`, loosest structure first: lists, relations, brackets, numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from rayzero.rewards.math.errors import TooLargeError, UnreadableError
from rayzero.rewards.math.reading.clean import clean
from rayzero.rewards.math.reading.labels import is_label, is_matrix_label, label_names
from rayzero.rewards.math.reading.lists import COMMA, MAX_ITEMS, solution_groups, spread_label, without_parameters
from rayzero.rewards.math.reading.matrices import read_matrix
from rayzero.rewards.math.reading.number_words import with_digits, with_part
from rayzero.rewards.math.reading.parse import parse_expression, parsed_or_none
from rayzero.rewards.math.reading.quantity import read_compound, read_quantity
from rayzero.rewards.math.reading.sets import read_membership, read_set, read_set_operation
from rayzero.rewards.math.reading.text import canonical_words, is_synonym, looks_like_words
from rayzero.rewards.math.reading.vectors import read_unit_vectors
from rayzero.rewards.math.split import enclosed, split_outside
from rayzero.rewards.math.values.answer import (
    Answer,
    Approximated,
    Equation,
    Inequality,
    Items,
    Junction,
    Modular,
    Named,
    Ratio,
    Scalar,
    Words,
    flattened,
)
from rayzero.rewards.math.values.clock import read_clock, read_colon, read_date
from rayzero.rewards.math.values.equality import is_constant, same_expression
from rayzero.rewards.math.values.nearness import within
from rayzero.rewards.math.values.tree import Num, Symbol, apply, number, symbols_of
from rayzero.rewards.math.values.units import PERCENT

_MAX_DEPTH = 12

# What parts the elements of a bare list: a comma or semicolon, `and`, `or`, in Chinese too.
_LIST = re.compile(
    r"[,;](?: *⟪? *\b(?:and|or)\b *⟫?)?|⟪[ ,;]*(?:or|and|或者?|和|且|以及|及)[ ,:]*⟫|"
    r"(?<![A-Za-z])(?:or|and)(?![A-Za-z])|或者?|和|且|以及",
    re.IGNORECASE,
)
# The signs between the sides of an equation or inequality.
_RELATION = re.compile(r"[=<>≤≥≠≡≈]")
# What parts the terms of a ratio: `3:2`, `3 to 2`, `3比2`.
_COLON = re.compile(r":|⟪ *to *⟫|(?<=[\d) ])to(?=[\d( ])|比")
# A parameter declared in brackets behind a list: `π/2 + kπ (k ∈ ℤ)`.
_PARAMETER_IN_BRACKETS = re.compile(r"(?<=\S) *[,;]? *\(( *[a-z] *∈ *[ℤZ] *)\)$")
# The reals without some points: `all real numbers except 2`, `all x but x = 1, 3`.
_EXCEPT = re.compile(
    r"^⟪? *(?:the )?(?:set of )?all (?:real numbers|reals|real [a-z]|[a-z])(?: [a-z])? *⟫?,? *⟪? *"
    r"(?:except(?: for)?|other than|but|excluding) *⟫? *(?:[a-z] *=)? *(?P<points>[^⟪⟫a-z]+)$"
)
# A residue class: `x ≡ 3 (mod 5)`, `3 \pmod{5}`, `3 modulo 5`.
_MODULAR = re.compile(
    r"^(?:(?P<label>[^≡]{1,40}?) *≡)? *(?P<residue>[^≡]+?) *[(,]? *"
    r"(?:\\p?(?:b|p)?mod|⟪ *mod(?:ulo)? *⟫|\bmod(?:ulo)?\b) *(?P<modulus>\{[^{}]+\}|[^{}()]+?) *\)?$"
)


@dataclass(frozen=True, slots=True)
class Style:
    """Readings between which the other side of the comparison decides."""

    attached_units: bool = False
    """`5m` is five metres."""


def read(text: str, style: Style | None = None) -> Answer:
    """Read text of the small language. Raises TooLargeError only."""
    return _Reader(style or Style()).read(text, 0)


class _Reader:
    def __init__(self, style: Style) -> None:
        self._style = style

    def read(self, text: str, depth: int) -> Answer:
        if depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        text = with_part(_EXCEPT.sub(r"ℝ∖⦃\g<points>⦄", clean(text)))
        if not text or is_synonym(text):
            return _synonym(text)
        if looks_like_words(text):
            return read_date(text) or read_clock(text) or _number_in_words(text) or Words(text)
        for reader in self._readers():
            try:
                found = reader(text, depth + 1)
            except TooLargeError:
                raise
            except UnreadableError:
                return Words(text)
            if found is not None:
                return found
        try:
            return read_quantity(text, attached=self._style.attached_units)
        except TooLargeError:
            raise
        except UnreadableError:
            return Words(text)

    def _readers(self) -> tuple[Callable[[str, int], Answer | None], ...]:
        return (
            self._matrix, self._calendar, self._modular, self._list, self._set_operation, self._membership,
            self._approximation, self._relation, self._plus_minus, self._ratio, self._unit_vectors, self._bracketed,
        )  # fmt: skip

    # -- structure, loosest first

    def _matrix(self, text: str, depth: int) -> Answer | None:
        return read_matrix(text, lambda part: self.read(part, depth))

    def _calendar(self, text: str, depth: int) -> Answer | None:
        return read_date(text) or read_clock(text) or read_clock(with_digits(text)) or read_compound(text)

    def _modular(self, text: str, depth: int) -> Answer | None:
        match = _MODULAR.match(text) if "mod" in text else None
        if match is None:
            return None
        modulus = match["modulus"].strip("{} ")
        return Modular(parse_expression(match["residue"].strip()), parse_expression(modulus), match["label"] or "")

    def _list(self, text: str, depth: int) -> Answer | None:
        text = re.sub(r"^\\?\{?(?:either|both) ", "", text)
        text = _PARAMETER_IN_BRACKETS.sub(r", \1", text)
        parts, separators = split_outside(text, _LIST)
        if len(parts) == 1:
            return None
        if len(parts) > MAX_ITEMS:
            raise TooLargeError("a list too long")
        if any(not part.strip() for part in parts):
            raise UnreadableError("an empty element")
        groups = solution_groups(text, lambda part: self.read(part, depth))
        if groups:
            return Items("", groups)
        parts, renamed = without_parameters(parts)
        if len(parts) == 1:
            return self.read(renamed(parts[0]), depth)
        items = spread_label([self.read(renamed(part), depth) for part in parts])
        joined = "".join(separators)
        by_or = re.search(r"\bor\b|或", joined, re.IGNORECASE) is not None
        if any(isinstance(item, Words) for item in items) and (by_or or re.search("[和及]", joined)):
            raise UnreadableError("words joined by or")
        if all(isinstance(item, Inequality) for item in items) and not re.search("[,;]", joined):
            return Junction("or" if by_or else "and", tuple(items))
        if all(isinstance(item, Inequality) for item in items) and any(
            item.ops == ("≠",) for item in items if isinstance(item, Inequality)
        ):
            return Junction("and", tuple(items))  # x > 0, x ≠ 1
        return flattened(Items("", tuple(items), "or" if by_or else ","))

    def _set_operation(self, text: str, depth: int) -> Answer | None:
        return read_set_operation(text, lambda part: self.read(part, depth))

    def _membership(self, text: str, depth: int) -> Answer | None:
        return read_membership(text, lambda part: self.read(part, depth))

    def _approximation(self, text: str, depth: int) -> Answer | None:
        parts, ops = split_outside(text, re.compile("≈"))
        if not ops:
            return None
        if len(parts) != 2:
            raise UnreadableError("several approximations")
        left, right = parts[0].strip(), parts[1].strip()
        decimal = read_quantity("≈" + right)
        if not left:
            return decimal
        if is_label(left):
            return Named(left, decimal, parsed_or_none(left))
        exact = self.read(left, depth)
        value = exact.value if isinstance(exact, Named) else exact
        if not isinstance(value, Scalar) or not _rounds_to(value, decimal):
            raise UnreadableError("two values that do not agree")
        both = Approximated(value, decimal)
        return Named(exact.label, both, exact.label_node) if isinstance(exact, Named) else both

    def _relation(self, text: str, depth: int) -> Answer | None:
        parts, ops = split_outside(text, _RELATION)
        if not ops:
            return None
        if all(op == "=" for op in ops):
            return self._equality([part.strip() for part in parts], depth)
        if "=" in ops or "≡" in ops or any(not part.strip() for part in parts):
            raise UnreadableError("mixed relations")
        if ops == ["≠"] and "±" in text:
            return Junction("and", tuple(self.read(text.translate(table), depth) for table in (_UPPER, _LOWER)))
        sides = [read_quantity(part.strip()) for part in parts]
        if any(side.unit.noun for side in sides):
            raise UnreadableError("words beside an inequality")
        return Inequality(tuple(side.node for side in sides), tuple(ops))

    def _equality(self, parts: list[str], depth: int) -> Answer:
        if parts[0] == "":
            parts = parts[1:]
        if len(parts) == 1:
            return self.read(parts[0], depth)
        if len(parts) == 2 and is_label(parts[1]) and not is_label(parts[0]):
            try:
                if is_constant(parse_expression(parts[0])):
                    parts = parts[::-1]
            except UnreadableError:
                pass
        if len(parts) > 2 and all(map(is_label, parts[:-1])):
            labels = parts[:-1] if all(re.fullmatch("[a-z]", label) for label in parts[:-1]) else parts[-2:-1]
            named = [
                self._named(label, parts[-1], depth) for label in labels
            ]  # x = y = 2 is a pair, AB = BC = 5 is not
            return Items("", tuple(named), "=") if len(named) > 1 else named[0]
        if is_label(parts[0]) or (is_matrix_label(parts[0]) and "\\begin" in parts[-1]):
            if len(parts) > 2:
                self._check_equal(parts[1:])
            answer = self._named(parts[0], parts[-1], depth)
            return _as_condition(answer) if len(parts) == 2 else answer
        if len(parts) == 2:
            left, right = map(parse_expression, parts)
            if not (is_constant(left) and is_constant(right)):
                return Equation(left, right)
        self._check_equal(parts)
        return self.read(parts[-1], depth)

    def _named(self, label: str, value: str, depth: int) -> Answer:
        names = label_names(label)
        read = self.read(value, depth)
        if names and isinstance(read, Items) and read.brackets == "()" and len(names) == len(read.items):
            return Named(label, read, None)
        return Named(label, read, parsed_or_none(label))

    def _check_equal(self, parts: list[str]) -> None:
        found = map(read_quantity, parts)
        nodes = [apply("div", one.node, number(100)) if one.unit == PERCENT else one.node for one in found]
        if not all(same_expression(nodes[0], node) for node in nodes[1:]):
            raise UnreadableError("the sides of an equality differ")

    def _plus_minus(self, text: str, depth: int) -> Answer | None:
        if ("±" not in text and "∓" not in text) or text[:1] == "⦃":  # ⦃0, ±1⦄ is one set
            return None
        around = enclosed(text)
        if around is not None and around[0] == "{}":
            return None
        if around is not None and around[0] == "()" and text.count("±") > 1 and "∓" not in text:
            return self._signs_of_a_tuple(split_outside(around[1], COMMA)[0], depth)
        if text.count("±") + text.count("∓") > 1 and not ("∓" in text and text.count("±") == 1):
            raise UnreadableError("several ±")
        upper, lower = (text.translate(table) for table in (_UPPER, _LOWER))
        return Items("", (self.read(re.sub(r"^\+", "", upper), depth), self.read(lower, depth)), "or")

    def _signs_of_a_tuple(self, parts: list[str], depth: int) -> Answer:
        """`(±1, ±2)`: four tuples, each sign for itself."""
        if len(parts) < 2 or any(part.count("±") > 1 for part in parts) or len(parts) > 4:
            raise UnreadableError("several ±")
        values = [[self.read(part.translate(table), depth) for table in (_UPPER, _LOWER)][: 1 + ("±" in part)]
                  for part in parts]  # fmt: skip
        return Items("", tuple(Items("()", items) for items in product(*values)), "or")

    def _ratio(self, text: str, depth: int) -> Answer | None:
        parts, separators = split_outside(text, _COLON)
        if not separators or not 2 <= len(parts) <= 6 or enclosed(text):
            return None
        return Ratio(tuple(parse_expression(part.strip()) for part in parts), read_colon(text))

    def _unit_vectors(self, text: str, depth: int) -> Answer | None:
        return read_unit_vectors(text)

    def _bracketed(self, text: str, depth: int) -> Answer | None:
        if text in ("∅", "ℝ", "ℤ", "ℕ", "ℚ", "ℂ"):
            return Items("⦃⦄", ()) if text == "∅" else Words(text)
        text = re.sub(r"^(?!C)[A-Z]'? *(?=\([^()]*,[^()]*\)$)", "", text)  # the point P(3, 4)
        around = enclosed(text)
        if around is None:
            return None
        brackets, inside = around
        if brackets in ("⦃⦄", "{}"):
            return read_set(inside, lambda part: self.read(part, depth))
        parts = split_outside(inside, COMMA)[0]
        if len(parts) > MAX_ITEMS:
            raise TooLargeError("a list too long")
        if len(parts) == 1:
            one = self.read(inside, depth) if brackets in ("()", "[]") else None
            return None if one is None or isinstance(one, Words) else one
        return Items(brackets, tuple(self.read(part, depth) for part in parts))


def _as_condition(answer: Answer) -> Answer:
    """`x = x² − 1` names no value of x: it is an equation."""
    if not isinstance(answer, Named) or not isinstance(answer.label_node, Symbol):
        return answer
    value = answer.value
    if isinstance(value, Scalar) and answer.label_node.name in symbols_of(value.node):
        return Equation(answer.label_node, value.node)
    return answer


def _synonym(text: str) -> Answer:
    """A phrase that stands for a symbol, or words."""
    words = canonical_words(text) if text else ""
    if words.endswith("∞"):
        return read_quantity(words)
    return Words("ℝ" if words == "ℝ" else text)


def _number_in_words(text: str) -> Answer | None:
    """`three` and `⟪twenty-five apples⟫`."""
    digits = with_digits(text)
    try:
        return read_quantity(digits) if digits != text else None
    except TooLargeError:
        raise
    except UnreadableError:
        return None


_UPPER = str.maketrans("±∓", "+-")
_LOWER = str.maketrans("±∓", "-+")


def _rounds_to(value: Scalar, decimal: Scalar) -> bool:
    """The decimal is the value, rounded or cut."""
    place = decimal.last_place
    if place is None or not within(value.node, decimal.node, place):
        return False
    cut = apply("add", decimal.node, apply("div", Num(place), number(2)))
    return within(value.node, decimal.node, place / 2) or within(value.node, cut, place / 2)
