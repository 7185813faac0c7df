"""Sets: unions and other operations, memberships `x ∈ S`, elements in braces, and builders `{x : x > 2}`.

The functions are handed `read`, which reads an element or a part of the text into an answer.
"""

from __future__ import annotations

import re

from rayzero.rewards.math.errors import TooLargeError, UnreadableError
from rayzero.rewards.math.reading.labels import is_label
from rayzero.rewards.math.reading.lists import COMMA, MAX_ITEMS, Read
from rayzero.rewards.math.reading.parse import parsed_or_none
from rayzero.rewards.math.split import split_outside
from rayzero.rewards.math.values.answer import Answer, Inequality, Items, Junction, Named, SetOperation, flattened

# What joins two sets.
_OPERATION = re.compile(r"[∪∩∖]")
# A text with `=` outside all brackets is a relation, and no set.
_EQUALS = re.compile("=")


def read_set_operation(text: str, read: Read) -> Answer | None:
    """`[1, 2) ∪ (3, ∞)`, `x ∈ ℝ∖⦃2⦄`; None where no operation stands outside all brackets."""
    text = re.sub(r"(?<=[\])⦄]) *(?:U|\\bigcup) *(?=[(\[⦃])", "∪", text)
    parts, ops = split_outside(text, _OPERATION)
    if not ops or len(split_outside(text, _EQUALS)[0]) > 1:
        return None
    if len(parts) > MAX_ITEMS:
        raise TooLargeError("a union too long")
    answer = read(parts[0].replace("x ∈", ""))
    label = None
    if "∈" in parts[0]:
        label = parts[0].split("∈")[0].strip()
        answer = read(parts[0].split("∈", 1)[1])
    for op, part in zip(ops, parts[1:], strict=True):
        answer = SetOperation(op, answer, read(part))
    return Named(label, answer, None) if label else answer


def read_membership(text: str, read: Read) -> Answer | None:
    """`x ∈ (0, 1)`: the set, named by what lies in it; None without a ∈ outside all brackets."""
    parts, ops = split_outside(text, re.compile("∈"))
    if not ops:
        return None
    if len(parts) != 2 or not is_label(parts[0]):
        raise UnreadableError("a membership")
    return Named(parts[0].strip(), read(parts[1]), parsed_or_none(parts[0]))


def read_set(inside: str, read: Read) -> Answer:
    """What set braces hold: elements, or a variable and its condition."""
    if not inside.strip():
        return Items("⦃⦄", ())
    halves, marks = split_outside(inside, re.compile(r"[|:]"))
    if len(halves) == 2 and marks:
        return _builder(halves[0], halves[1], read)
    parts = split_outside(inside, COMMA)[0]
    if len(parts) > MAX_ITEMS or any(not part.strip() for part in parts):
        raise TooLargeError("a set too large")
    return flattened(Items("⦃⦄", tuple(read(part) for part in parts)))


def _builder(variable: str, condition: str, read: Read) -> Answer:
    """`x ∈ ℝ : x > 2`; a condition that lists the values of x is the set of them."""
    name, _, universe = variable.partition("∈")
    if universe.strip() not in ("", "ℝ", "R") or not is_label(name):
        raise UnreadableError("a set over something else than the reals")
    condition = re.sub(r"[,;] *[A-Za-z] *∈ *ℝ *$", "", condition)
    found = read(condition)
    if not isinstance(found, Inequality | Junction | Named | Items):
        raise UnreadableError("an unknown condition")
    if isinstance(found, Items) and all(isinstance(item, Named) for item in found.items):
        return Items("⦃⦄", tuple(item.value for item in found.items if isinstance(item, Named)))
    if isinstance(found, Items):
        found = Junction("and" if found.joiner == "," else "or", found.items)
    return found
