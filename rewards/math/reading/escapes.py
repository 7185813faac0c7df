r"""Backslashes that a data set doubled: `\\frac{1}{2}`, written into JSON twice, is `\frac{1}{2}`.

A doubled backslash also ends a row. So one is undone only where no environment has rows, or where the environment's own
`\begin` is doubled as well.
"""

from __future__ import annotations

import re

from rayzero.rewards.math.reading.symbols import (
    DROPPED_WITH_ARGUMENT,
    FUNCTIONS,
    GREEK,
    MACROS,
    PLAIN_WRAPPERS,
    SPACING,
    SYNONYM_COMMANDS,
    TEXT_MACROS,
)
from rayzero.rewards.math.split import words

_DOUBLED = re.compile(r"(?<!\\)\\\\(?:(?P<name>[A-Za-z]+)|(?=[{}%$,;!|&#()\[\]]))")
_DOUBLED_ENVIRONMENT = re.compile(r"(?<!\\)\\\\(?:begin|end)(?![A-Za-z])")
_COMMANDS = frozenset(
    words(
        "frac binom sqrt sum prod int lim overline vec hat bar angle triangle mathbb forall exists partial nabla "
        "pmod bmod mod boxed choose over widehat overrightarrow tilde ell root infty arcsec arccot arccsc"
    )
).union(
    MACROS, TEXT_MACROS, PLAIN_WRAPPERS, DROPPED_WITH_ARGUMENT, SYNONYM_COMMANDS, FUNCTIONS, GREEK.values(), SPACING
)


def single_backslashes(text: str) -> str:
    """With every backslash that was doubled by accident single, and without those at the end."""
    if text.rstrip().endswith("\\"):
        text = text.rstrip("\\ \n\t")
    if "\\\\" not in text:
        return text
    if _DOUBLED_ENVIRONMENT.search(text):
        return text.replace("\\\\", "\\")
    if "\\begin" in text:
        return text
    return _DOUBLED.sub(_single, text)


def _single(match: re.Match[str]) -> str:
    name = match["name"]
    return match[0][1:] if name is None or name in _COMMANDS else match[0]
