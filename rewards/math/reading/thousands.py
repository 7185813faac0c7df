"""Commas between groups of three digits: is `1,234` one number or two?

Outside brackets it is one. Inside brackets it is one only where other commas are looser or a group begins with 0: so
`(1,234)` is a pair and `(1,234, 5,678)` is one of large numbers.
"""

from __future__ import annotations

import re

from rayzero.rewards.math.split import depths

_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_GROUPED_BY_TWO = re.compile(r"(?<![\d.,])[1-9]\d?(?:,\d\d)+,\d{3}(?!\d|,\d)")
"""12,34,567: lakhs and crores."""
_DECIMAL_COMMA = re.compile(
    r"^(?P<before>[^\d,]*)(?:(?P<grouped>\d{1,3}(?:[. ]\d{3})+),(?P<part>\d{1,2}|\d{4,})|"
    r"(?P<whole>0(?=,0)|[1-9]\d*(?!,0\d\d\D|,0\d\d$)),(?P<after_zero>0\d+))(?P<rest>(?![\d.,])[^,]*)$"
)
"""1.234,5 and 0,05: what stands behind such a comma is no number of a list."""
_EUROPEAN = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:[. ]\d{3})+),(\d{2})(?![\d.,]\d|\d)")
"""1.234,50: two digits behind the comma leave no other reading."""
_LOOSE_COMMA = re.compile(r",\s")


def joined_thousands(text: str, *, only_certain: bool = False) -> str:
    """Remove grouping commas; with `only_certain`, not those that may separate the elements of a tuple or set."""
    if "," not in text:
        return text
    text = _EUROPEAN.sub(lambda match: re.sub("[. ]", "", match[1]) + "." + match[2], text)
    if not only_certain:
        text = _DECIMAL_COMMA.sub(_with_point, text)
        text = _GROUPED_BY_TWO.sub(lambda match: match[0].replace(",", ""), text)
    levels = depths(text)
    loose = _LOOSE_COMMA.search(text) is not None

    def joined(match: re.Match[str]) -> str:
        group = match.group()
        inside = levels is not None and levels[match.start()] > 0
        if only_certain and inside and not loose and not re.search(r",0", group):
            return group
        return group.replace(",", "")

    return _GROUPED.sub(joined, text)


def _with_point(match: re.Match[str]) -> str:
    whole = re.sub("[. ]", "", match["grouped"] or match["whole"])
    return f"{match['before']}{whole}.{match['part'] or match['after_zero']}{match['rest']}"


def split_thousands(text: str) -> str:
    """Every comma separates."""
    return re.sub(r",(?=\d)", ", ", text)
