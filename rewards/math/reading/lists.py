"""What the elements of a list share: a parameter declared beside them, the label of the first."""

from __future__ import annotations

import re
from collections.abc import Callable

from rayzero.rewards.math.reading.labels import normal_label
from rayzero.rewards.math.split import split_outside
from rayzero.rewards.math.values.answer import Answer, Equation, Inequality, Items, Named, Scalar, Words
from rayzero.rewards.math.values.tree import Symbol

Read = Callable[[str], Answer]
"""Reads a part of a text into an answer."""

MAX_ITEMS = 40
"""Elements of one list, set or matrix, beyond which it is refused."""

COMMA = re.compile(r"[,;]")
"""What parts the elements inside brackets."""

# A parameter declared beside a list: `k ∈ ℤ`, `where n is an integer`, `其中 k 为整数`.
_INTEGER_PARAMETER = re.compile(
    r"^(?:⟪? *(?:where|for|其中|for any|for all|with)? *⟫?)? *\(? *([A-Za-z]) *"
    r"(?:∈ *(?:ℤ|Z)|⟪? *is (?:an|any) integer *⟫?|⟪? *为整数 *⟫?|⟪? *∈ *整数 *⟫?) *\)?$"
)
# What parts two solutions that each name several values: `;`, `or`.
_GROUPS = re.compile(r";(?: *⟪? *(?:or|and) *⟫?)?|⟪[ ,]*(?:or|或者?)[ ,:]*⟫|(?<![A-Za-z])or(?![A-Za-z])|或者?")
# What parts the values within one solution: `,`, `and`.
_WITHIN_GROUP = re.compile(r",|⟪ *and *⟫|(?<![A-Za-z])and(?![A-Za-z])|[且和]")


def without_parameters(parts: list[str]) -> tuple[list[str], Callable[[str], str]]:
    """Drop `k ∈ ℤ` from a list and call the parameter k everywhere."""
    kept, names = [], []
    for part in parts:
        match = _INTEGER_PARAMETER.match(part.strip())
        if match:
            names.append(match[1])
        else:
            kept.append(part)
    if len(names) != 1 or names[0] == "k" or not kept:
        return (kept or parts), lambda part: part
    own = re.compile(rf"(?<![A-Za-z\\]){names[0]}(?![A-Za-z])")
    return kept, lambda part: own.sub("k", part)


def spread_label(items: list[Answer]) -> list[Answer]:
    """`x = 3 or 4`: the label of the first holds for the others."""
    first = items[0]
    if isinstance(first, Named) and not any(
        isinstance(item, Named | Inequality | Equation | Words) for item in items[1:]
    ):
        return [first, *(Named(first.label, item, first.label_node) for item in items[1:])]
    if isinstance(first, Inequality) and first.ops == ("≠",) and isinstance(first.sides[0], Symbol):
        return [Inequality((first.sides[0], item.node), ("≠",)) if isinstance(item, Scalar) else item for item in items]
    return items


def solution_groups(text: str, read: Read) -> tuple[Items, ...]:
    """`a=1, b=2; a=3, b=4` and the like: one tuple of named values a solution; empty for anything else."""
    parts, _ = split_outside(text, _GROUPS)
    if len(parts) < 2 or not all(part.count("=") > 1 and _WITHIN_GROUP.search(part) for part in parts):
        return ()
    groups = [read(part) for part in parts]
    found = [Items("()", group.items) for group in groups if isinstance(group, Items) and _names(group)]
    if len(found) != len(parts) or any(_names(group) != _names(found[0]) for group in found):
        return ()
    return tuple(found)


def _names(group: Items) -> list[str]:
    """The different names of a group of named values, in order; none where one is unnamed or named twice."""
    names = sorted(normal_label(item.label) for item in group.items if isinstance(item, Named))
    return names if len(names) == len(group.items) == len(set(names)) else []
