"""Exact match with aliases, as question answering is scored: the same words, whatever their case and punctuation.

Signs and points within numbers count: -5 is not 5, and 3.5 is not 35.
"""

from __future__ import annotations

import re
import unicodedata

from rayzero.rewards.base import Case, PureReward, Score, failed, scored
from rayzero.rewards.kinds.math_reward import gold_texts
from rayzero.rewards.kinds.stated_answer import stated_answer
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import ExactComponent

_ARTICLES = re.compile(r"\b(?:the|an|a)\b(?! *[.,;:!?]*$)", re.IGNORECASE)
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-"})
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit)\s*\{([^{}]*)\}")
_INSIDE = re.compile(r"(?<=\d)[.,](?=\d)|(?<![\w)])[-+](?=\.?\d)|(?<=\w)[+#]+(?!\w)|(?<!\w)\.(?=\d)")
"""Points and commas within numbers, signs before them, and C++ and C#."""


class ExactReward(PureReward):
    """1 where the answer is one of the accepted texts, else 0."""

    def __init__(self, settings: ExactComponent) -> None:
        self.settings = settings

    def judge(self, case: Case) -> Score:
        """1 or 0; a prompt without any accepted text is an error."""
        accepted = gold_texts(case.prompt.answer)
        if accepted is not None and self.settings.aliases_column:
            accepted += gold_texts(case.prompt.columns.get(self.settings.aliases_column, [])) or ()
        if not accepted or not any(text.strip() for text in accepted):
            return failed(
                ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: the gold answer must be a text, a number or a list"
            )
        found = stated_answer(case, self.settings.answer_from)
        if found.text is None:
            return scored(0.0, reason=found.problem)
        own = self._plain(found.text)
        match = next((text for text in accepted if text.strip() and self._plain(text) == own), None)
        if match is None:
            return scored(0.0, reason=f"{own[:80]!r} is none of {len(accepted)} accepted answers")
        return scored(1.0, reason=f"{own[:80]!r} is {match[:80]!r}")

    def _plain(self, text: str) -> str:
        return plain_words(
            text, case_sensitive=self.settings.case_sensitive, ignore_articles=self.settings.ignore_articles
        )


def plain_words(text: str, *, case_sensitive: bool = False, ignore_articles: bool = True) -> str:
    """For comparison: NFKC, single spaces, without punctuation that is not part of a number. Never empty for any sign.

    Example: `plain_words(" The  Eiffel-Tower. ") == "eiffel tower"`.
    """
    text = unicodedata.normalize("NFKC", _LATEX.sub(r"\1", text)).translate(_QUOTES)
    text = text if case_sensitive else text.casefold()
    bare = _ARTICLES.sub(" ", text) if ignore_articles else text
    for candidate in (_without_punctuation(bare), _without_punctuation(text)):
        if candidate:
            return candidate
    return " ".join(text.split())


def _without_punctuation(text: str) -> str:
    kept = {index for match in _INSIDE.finditer(text) for index in range(*match.span())}
    plain = []
    for index, char in enumerate(text):
        if index in kept:
            plain.append("" if char == "," else char)
        elif char == "'":
            continue
        else:
            plain.append(" " if unicodedata.category(char)[0] in "PZC" else char)
    return " ".join("".join(plain).split())
