"""Formulas that are not read, such as sums and integrals: the same text in all but spacing and needless braces."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"\\(?:partial|nabla|begin|frac|sqrt)\b|[∪∩^_=]")
_UNEVALUATED = re.compile(r"\\(?:sum|prod|int|iint|oint|lim)\b|[∪∩] *_")
_TEXT = re.compile(r"(⟪[^⟪⟫]*⟫)")
_SPACE = re.compile(r"(?<!\d) +| +(?!\d)")


def same_formula(answer: str, gold: str) -> bool:
    """Both are formulas, in the small language, and alike to a reader. Digits are never joined: `3 4` is not `34`."""
    if not (_FORMULA.search(answer) or _UNEVALUATED.search(answer)):
        return False
    return _compact(answer) == _compact(gold)


def is_unevaluated(text: str) -> bool:
    """A sum, integral, limit or union over an index: its text is all that can be compared."""
    return _UNEVALUATED.search(text) is not None


def _compact(text: str) -> str:
    """Without spaces, except those between digits and in words."""
    parts = _TEXT.split(text)
    return "".join(part if part.startswith("⟪") else _tight(part) for part in parts)


def _tight(text: str) -> str:
    """A group of one sign is that sign, unless a digit behind it would join it."""
    text = re.sub(r"(?<=[_^]) +", "", text)
    text = re.sub(r"(?<=[_^])\{ *([A-Za-z∞]|\d(?= *\}(?! *\d))) *\}", r"\1 ", text)
    text = re.sub(r"(?<=[_^])([A-Za-z∞]|\d(?!\d)) *", r"\1 ", text)
    return _SPACE.sub("", text)
