"""Walks over the text of one scalar expression, character by character."""

from __future__ import annotations

from rayzero.rewards.math.errors import UnreadableError

TERMINATORS = frozenset("+-*/^_)]}|,;:=<>≤≥≠≈≡∪∩∖∈∉±∓!°%'⟫⦄⟩⌋⌉→⇒⇔&?.@#\"…")
"""Characters that no operand starts with."""


class Scanner:
    """A text and a place in it. Spaces separate, and mean nothing else."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._bars = 0
        """How many `|` are open."""

    def _skip(self) -> int:
        while self._text[self._at : self._at + 1] == " ":
            self._at += 1
        return self._at

    def _peek(self) -> str:
        at = self._skip()
        return self._text[at : at + 1]

    def _take(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _expect(self, char: str) -> None:
        if self._take() != char:
            raise UnreadableError(f"missing {char}")

    def _starts_operand(self) -> bool:
        char = self._peek()
        if char == "|":
            return not self._bars
        if self._text.startswith(("\\choose ", "\\over "), self._at):
            return False
        return bool(char) and char not in TERMINATORS
