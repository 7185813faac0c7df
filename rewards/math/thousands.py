"""Commas between groups of three digits: is `1,234` one number or two?

Outside brackets it is one. Inside brackets it is one only where other commas are looser or a group begins with 0: so
`(1,234)` is a pair and `(1,234, 5,678)` is one of large numbers.
"""

from __future__ import annotations

import re

from rewards.math.split import depths

_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_LOOSE_COMMA = re.compile(r",\s")


def joined_thousands(text: str, *, only_certain: bool = False) -> str:
    """Remove grouping commas; with `only_certain`, not those that may separate the elements of a tuple or set."""
    if "," not in text:
        return text
    levels = depths(text)
    loose = _LOOSE_COMMA.search(text) is not None

    def joined(match: re.Match[str]) -> str:
        group = match.group()
        inside = levels is not None and levels[match.start()] > 0
        if only_certain and inside and not loose and not re.search(r",0", group):
            return group
        return group.replace(",", "")

    return _GROUPED.sub(joined, text)


def split_thousands(text: str) -> str:
    """Every comma separates."""
    return re.sub(r",(?=\d)", ", ", text)
