"""An environment that comes with rayzero: a library of documents that a row brings along, and a search of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_WORD = re.compile(r"\w+")
SATURATION, LENGTH_SHARE = 1.2, 0.75
"""BM25's k1 and b."""


class Library:
    """The column `documents` of a row, searched by words: for data whose questions come with their paragraphs."""

    def __init__(self, num_results: int = 3) -> None:
        """`num_results`: documents that one search shows."""
        self.num_results = num_results
        self._texts: list[str] = []
        self._counts: list[Counter[str]] = []
        self._holding: Counter[str] = Counter()

    def reset(self, documents: Sequence[str | Mapping[str, Any]], **row: object) -> None:
        """Each document is a text, or has a `text` and, if it likes, a `title`.

        Raises:
            ValueError: one is neither.
        """
        self._texts = [_text_of(document) for document in documents]
        self._counts = [Counter(_words(text)) for text in self._texts]
        self._holding = Counter(word for counts in self._counts for word in counts)

    def search(self, query: str) -> str:
        """Search the library for documents.

        Args:
            query: What to look for, in a few words.
        """
        scores = [(self._score(_words(query), counts), -place) for place, counts in enumerate(self._counts)]
        best = [(score, -place) for score, place in sorted(scores, reverse=True)[: self.num_results] if score > 0]
        found = [f"{number}. {self._texts[place]}" for number, (_, place) in enumerate(best, start=1)]
        return "\n".join(found) or "Nothing was found."

    def _score(self, words: Sequence[str], counts: Counter[str]) -> float:
        """BM25 (Robertson and Zaragoza, 2009)."""
        number = len(self._texts)
        mean = sum(each.total() for each in self._counts) / number
        norm = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * counts.total() / max(mean, 1.0))
        return sum(
            math.log(1 + (number - self._holding[word] + 0.5) / (self._holding[word] + 0.5))
            * counts[word] * (SATURATION + 1) / (counts[word] + norm)
            for word in set(words)
            if counts[word]
        )  # fmt: skip


def _text_of(document: str | Mapping[str, Any]) -> str:
    if isinstance(document, str):
        return document
    if not isinstance(document, Mapping) or not isinstance(document.get("text"), str):
        raise ValueError(f"a document must be a text, or have a text: {str(document)[:80]}")
    title = document.get("title")
    return f"{title}: {document['text']}" if title else str(document["text"])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
