"""Format reward: one thought, then one answer.

A scanner with counts, linear in the text: a regular expression for this shape is either wrong in corner cases or
quadratic on a completion full of open tags. Tags are case-sensitive and written exactly so: `<THINK>` is text.
"""

from __future__ import annotations

import re
import unicodedata

from rayzero.rewards.answer_part import answer_part
from rayzero.rewards.base import THINK_CLOSE, THINK_OPEN, Case, PureReward, Score, scored

ANSWER_OPEN = "<answer>"
ANSWER_CLOSE = "</answer>"

_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that print as nothing: Hangul fillers and the empty Braille cell."""
_INVISIBLE_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001d159]")
"""Marks that print as nothing: joiners, inherent vowels, variation selectors, the null note head."""


class FormatReward(PureReward):
    """1 for exactly one thought followed by an answer, else 0."""

    def __init__(self, *, answer_tags: bool = False) -> None:
        self.answer_tags = answer_tags

    def judge(self, case: Case) -> Score:
        """1 or 0; the reason names the first thing that is wrong."""
        fault = format_fault(case.text, prefilled=case.prefilled, answer_tags=self.answer_tags)
        return scored(0.0 if fault else 1.0, reason=fault or "one thought, then an answer")


def format_fault(text: str, *, prefilled: bool = False, answer_tags: bool = False) -> str:
    """What is wrong with a completion's format; empty when nothing is.

    `prefilled`: the prompt already ended in <think>, so that the completion must not open it again.
    `answer_tags`: what follows the thought must be exactly one non-blank <answer>…</answer>. Blank tags are a fault
    in any case.
    """
    num_open, num_close = text.count(THINK_OPEN), text.count(THINK_CLOSE)
    if prefilled and num_open:
        return "a second <think>: the prompt already ended in one"
    if not prefilled and num_open != 1:
        return f"{num_open} <think> instead of one"
    if num_close != 1:
        return f"{num_close} </think> instead of one"
    start = 0 if prefilled else text.index(THINK_OPEN)
    if text[:start].strip():
        return "text before <think>"
    close = text.index(THINK_CLOSE)
    if close < start:
        return "</think> before <think>"
    if is_blank(text[start + (0 if prefilled else len(THINK_OPEN)) : close]):
        return "a blank thought"
    answer = answer_part(text, prefilled=prefilled) or ""
    if is_blank(answer):
        return "a blank answer"
    if answer_tags:
        return _answer_tags_fault(text, answer)
    return "a blank <answer>" if _has_blank_tags(answer) else ""


def is_blank(text: str) -> bool:
    """Nothing in it can be seen: white space, control and format characters (zero-width space, joiners, …) only, and
    what is no character (Cs: half of one, Cn: none is assigned)."""
    return all(
        character.isspace()
        or character in _INVISIBLE_LETTERS
        or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn")
        or _INVISIBLE_MARKS.match(character)
        for character in text
    )


def _has_blank_tags(answer: str) -> bool:
    """Answer tags with nothing between them promise an answer that is not there."""
    for piece in answer.split(ANSWER_OPEN)[1:]:
        inside, closed, _ = piece.partition(ANSWER_CLOSE)
        if closed and is_blank(inside):
            return True
    return False


def _answer_tags_fault(text: str, answer: str) -> str:
    num_open, num_close = text.count(ANSWER_OPEN), text.count(ANSWER_CLOSE)
    if num_open != 1 or num_close != 1:
        return f"{num_open} <answer> and {num_close} </answer> instead of one pair"
    answer = answer.strip()
    if not (answer.startswith(ANSWER_OPEN) and answer.endswith(ANSWER_CLOSE)):
        return "something besides <answer>…</answer> after the thought"
    if is_blank(answer[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]):
        return "a blank answer"
    return ""
