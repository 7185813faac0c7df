"""Finding separators that stand outside all brackets, and the bracket that closes another."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "([{⦃⟨⟪⌊⌈", ")]}⦄⟩⟫⌋⌉"


def depths(text: str) -> list[int] | None:
    """Bracket depth at every character (of a bracket itself: outside); None where brackets do not balance."""
    found, depth = [], 0
    for char in text:
        if char in _CLOSE:
            depth -= 1
            if depth < 0:
                return None
        found.append(depth)
        if char in _OPEN:
            depth += 1
    return None if depth else found


def split_outside(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Parts of the text between top-level separators, and the separators. One part where there are none."""
    levels = depths(text)
    if levels is None:
        return [text], []
    parts, separators, start = [], [], 0
    for match in separator.finditer(text):
        if match.end() > match.start() and levels[match.start()] == 0:
            parts.append(text[start : match.start()])
            separators.append(match.group())
            start = match.end()
    return [*parts, text[start:]], separators


def enclosed(text: str) -> tuple[str, str] | None:
    """The brackets (both) around the whole text and what they hold; None where the first does not close at the end."""
    levels = depths(text)
    if not levels or len(text) < 2 or text[0] not in _OPEN or text[-1] not in _CLOSE:
        return None
    if any(level == 0 for level in levels[1:-1]):
        return None
    return text[0] + text[-1], text[1:-1]


def words(text: str) -> list[str]:
    """The words of a table that is written as one string."""
    return text.split()
