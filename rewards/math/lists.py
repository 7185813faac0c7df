"""What the elements of a list share: a parameter declared beside them, the label of the first."""

from __future__ import annotations

import re
from collections.abc import Callable

from rewards.math.answer import Answer, Equation, Inequality, Named, Words

_INTEGER_PARAMETER = re.compile(
    r"^(?:⟪? *(?:where|for|其中|for any|for all|with)? *⟫?)? *\(? *([A-Za-z]) *"
    r"(?:∈ *(?:ℤ|Z)|⟪? *is (?:an|any) integer *⟫?|⟪? *为整数 *⟫?|⟪? *∈ *整数 *⟫?) *\)?$"
)


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
    return items
