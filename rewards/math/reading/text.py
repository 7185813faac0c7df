"""Answers in words: compared as whole words, in any case, without articles and punctuation; a few are synonyms."""

from __future__ import annotations

import re

_SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("no solution", "no solutions", "there is no solution", "there are no solutions", "has no solution",
     "has no solutions",
     "no real solution", "no real solutions", "无解", "方程无解", "没有解", "无实数解", "∅", "empty set", "空集",
     "\\phi"),
    ("does not exist", "dne", "doesn't exist", "不存在"),
    ("infinitely many solutions", "infinitely many", "infinite solutions", "infinite number of solutions",
     "无穷多解", "无数解", "有无穷多解",
     "无穷多个解", "无数个解"),
    ("ℝ", "all real numbers", "all reals", "real numbers", "set of all real numbers", "all real x", "任意实数",
     "全体实数", "实数集",
     "一切实数"),
    ("true", "正确"),
    ("false", "错误"),
    ("yes", "是", "是的"),
    ("no", "否", "不是"),
    ("undefined", "not defined", "无定义", "无意义"),
    ("∞", "infinity", "+∞", "infinite", "无穷大", "正无穷"),
    ("-∞", "negative infinity", "minus infinity", "负无穷"),
    ("even", "偶数", "even number"),
    ("odd", "奇数", "odd number"),
    ("cannot be determined", "can not be determined", "can't be determined", "not enough information", "无法确定",
     "不能确定"),
)  # fmt: skip
_CANONICAL = {phrase: group[0] for group in _SYNONYMS for phrase in group}
_JOINT = re.compile(r", *(?:and )?| and |[和与及]")
_NUMBERED = re.compile(r"\(?\d\d?\)?(?: *(?:,|;|和|与|及|\band\b) *\(?\d\d?\)?)*|\(\d\d?\)(?: *\(\d\d?\))*")
_NOISE = re.compile(r"[⟪⟫{}$\"“”\"`*_]")


def same_words(answer: str, gold: str) -> bool:
    """Whole-word equality of two texts in the small language."""
    first, second = canonical_words(answer), canonical_words(gold)
    marks = [sorted(re.findall("[①-⑳]", words)) for words in (first, second)]
    if all(re.fullmatch("[①-⑳][①-⑳, 和与及]*", words) for words in (first, second)):  # ①③: statements, in any order
        return marks[0] == marks[1]
    parts = [sorted(map(canonical_words, _JOINT.split(words))) for words in (first, second)]
    if min(map(len, parts)) > 1:  # a list of words has no order
        return parts[0] == parts[1]
    return bool(first) and first == second


def numbered_statements(text: str) -> list[int] | None:
    """`②④` and `(2)(4)`: the numbers of the statements that are chosen, in order; None for any other text."""
    plain = _NOISE.sub(" ", re.sub("^⦃(.*)⦄$", r"\1", text)).strip()
    if re.fullmatch("[①-⑳](?:[①-⑳]|[, 和与及])*", plain):
        return sorted(ord(mark) - ord("①") + 1 for mark in re.findall("[①-⑳]", plain))
    if _NUMBERED.fullmatch(plain):
        return sorted(map(int, re.findall(r"\d+", plain)))
    return None


def canonical_words(text: str) -> str:
    """Lower case, single spaces, no articles or final punctuation; the first of its synonyms."""
    words = _NOISE.sub(" ", text).lower()
    words = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", words)
    words = re.sub(r"\\(?=[a-z])|(?<=\w)[.;:](?=\s|$)|^[.,;:\s]+|[.,;:\s]+$", " ", words)
    words = re.sub(r"(?<=[a-z\u4e00-\u9fff]{2})!+$", "", words.rstrip())  # n! is a factorial
    words = re.sub(r"\s+", " ", words).strip()
    words = re.sub(r"(?<=[\u4e00-\u9fff]) | (?=[\u4e00-\u9fff])", "", words)
    words = re.sub(r"^(?:the|an|a) (?=\w{2,})", "", words)
    return _CANONICAL.get(words, words)


def is_synonym(text: str) -> bool:
    """One of the phrases above, so that it is read as words even if it could be mathematics."""
    words = canonical_words(text)
    return words in _CANONICAL and text not in ("∞", "-∞", "+∞", "ℝ", "∅")


def looks_like_words(text: str) -> bool:
    """A lone run of letters, or text marks around them, is a word rather than a product."""
    if re.fullmatch(r"⟪[^⟪⟫]*⟫", text):
        return len(text) > 3
    return re.fullmatch(r"[A-Za-z]{2,}", text) is not None and not is_product(text)


def is_product(run: str) -> bool:
    """`ab` and `xyz`, but not `cat`: all letters are of one usual family."""
    if run in ("pi", "inf", "infinity"):
        return True
    return len(set(run)) == len(run) and any(
        set(run) <= set(family)
        for family in (
            "abc",
            "xyz",
            "mn",
            "pqr",
            "rst",
            "uvw",
            "kx",
            "nx",
            "ax",
            "bx",
            "ay",
            "by",
            "cx",
            "cy",
            "mx",
            "ct",
            "kt",
        )
    )
