"""Answers without a box, where a recipe asks for them: data sets whose prompts ask for another form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayzero.services.schema.config.math import Fallback

_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
_ANSWER_LINE = re.compile(
    r"^[ \t>#*_]*(?:(?:the|my|final|correct)[ \t]+){0,2}(?:answer|ans|答案)[ \t*_]*[:：][ \t*_]*(?P<answer>\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL_ANSWER = re.compile(
    r"\b(?:final[ \t]+answer|(?:the|my)[ \t]+(?:correct[ \t]+)?answer)\b[ \t*_]*(?:(?:is|are)\b[ \t]*:?|[:：])"
    r"[\s*_]*(?P<answer>[^\s*_].*)",
    re.IGNORECASE,
)
_MAX_SENTENCE_CHARS = 4_000
_HOPE = re.compile(r"[.!]?[ \t]{0,3}I hope (?:it|this|that)\b.*$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!。](?=\s|$)")
_MATH = re.compile(r"^(?:\$\$(.+?)\$\$|\$(?! )(.+?)(?<![ \\])\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\])")


def unboxed_answer(part: str, fallback: Fallback) -> str | None:
    """The answer that this rule finds in the answer part; None where there is none."""
    return _RULES[fallback](part)


def _after_hashes(part: str) -> str | None:
    _, found, rest = part.rpartition("####")
    line = rest.strip().splitlines()[0].strip() if rest.strip() else ""
    return line if found and line else None


def _last_number(part: str) -> str | None:
    found = None
    for match in _NUMBER.finditer(part):
        found = match.group()
    return found


def _answer_line(part: str) -> str | None:
    """Of the last line `Answer: …`."""
    found = None
    for match in _ANSWER_LINE.finditer(part):
        found = match["answer"]
    return None if found is None else _plain(found)


def _answer_tags(part: str) -> str | None:
    """Of the last `<answer>…</answer>`; a tag that is opened and never closed is no answer."""
    _, opened, inside = part.rpartition("<answer>")
    inside, closed, _ = inside.partition("</answer>")
    return inside.strip() or None if opened and closed else None


def _final_answer(part: str) -> str | None:
    """Of the last "The final answer is …" up to the end of its sentence."""
    found = None
    for match in _FINAL_ANSWER.finditer(part):
        found = match["answer"]
    if found is None:
        return None
    found = _HOPE.sub("", found[:_MAX_SENTENCE_CHARS]).strip()
    if (formula := _MATH.match(found)) is not None:
        rest = found[formula.end() :]
        return next(filter(None, formula.groups())) if not rest.strip(" .*_") else _plain(_sentence(found))
    return _plain(_sentence(found))


def _sentence(text: str) -> str:
    end = _SENTENCE_END.search(text)
    return text if end is None else text[: end.start()]


def _plain(text: str) -> str | None:
    """Without Markdown's emphasis around it and without its full stop."""
    text = text.strip().rstrip("*_ ").lstrip("*_ ")
    return re.sub(r"(?<!\.)[.。]$", "", text).strip() or None


_RULES: Mapping[Fallback, Callable[[str], str | None]] = {
    "hashes": _after_hashes,
    "last_number": _last_number,
    "answer_line": _answer_line,
    "answer_tags": _answer_tags,
    "final_answer": _final_answer,
}
