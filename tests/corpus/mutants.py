"""Gold answers with one thing changed: a digit, a sign, a bracket, a relation, a unit, an operation."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SWAPS = (
    ("(", "["), ("[", "("), (")", "]"), ("]", ")"), ("<", ">"), (">", "<"), ("<", r"\le "), (r"\le", "<"),
    (r"\ge", ">"),
    (r"\leq", r"\geq"), ("+", "-"), ("-", "+"), ("=", r"\ne "), (r"\cup", r"\cap"), (r"\in", r"\notin"), ("sin", "cos"),
    (r"\sqrt", ""), (r"\frac", r"\binom"), ("cm", "m"), ("km", "m"), ("hours", "minutes"), ("min", "s"), (r"\%", ""),
    (r"^\circ", ""), ("$", "€"), ("apples", "oranges"), (r"\pi", "e"), ("^", "_"), (r"\cdot", "+"), ("!", ""),
)  # fmt: skip


def mutants(gold: str) -> Iterator[str]:
    """Every text that differs from the gold answer in one place. Some still mean the same: `-0`, `x + y` of `y + x`."""
    for match in re.finditer(r"\d", gold):
        digit = str((int(match[0]) + 1) % 10)
        yield gold[: match.start()] + digit + gold[match.end() :]
    for old, new in _SWAPS:
        for match in re.finditer(re.escape(old), gold):
            yield gold[: match.start()] + new + gold[match.end() :]
    if not gold.lstrip().startswith("-"):
        yield "-" + gold
