r"""The gold answer in a gold text, which may be a whole solution: what it boxes, or what follows `####`."""

from __future__ import annotations

import re

from rayzero.rewards.math.errors import BadGoldError, TooLargeError, UnreadableError
from rayzero.rewards.math.reading.clean import clean
from rayzero.rewards.math.reading.extract import boxed_answers, extract
from rayzero.rewards.math.reading.normalise import normalise

_MACRO = re.compile(r"\\[A-Za-z]+")
_SIGN = re.compile(r"[^\W_]")


def gold_answers(text: str) -> tuple[str, ...]:
    """The texts of the gold answer: one, or several boxes that are fit for use only if they say the same.

    Raises BadGoldError where there is nothing to compare with: empty text, empty or open boxes, nothing but marks.
    """
    found = _answers(text)
    for answer in found:
        if _is_blank(answer):
            raise BadGoldError("the gold answer is empty")
    return found


def _answers(text: str) -> tuple[str, ...]:
    if "box" in text:
        boxed = tuple(dict.fromkeys(boxed_answers(text)))
        if boxed:
            return boxed
        problem = extract(text).problem or ""
        if problem.startswith("the last"):
            raise BadGoldError(f"the gold answer cannot be read: {problem}")
    _, hashes, rest = text.rpartition("####")
    return (rest.strip() if hashes and rest.strip() else text,)


def _is_blank(answer: str) -> bool:
    """Nothing is left of it when spaces, math marks and groups are gone."""
    if _SIGN.search(_MACRO.sub("", answer)):
        return False
    if not answer.strip():
        return True
    try:
        return not clean(normalise(answer))
    except (UnreadableError, TooLargeError):
        return False
