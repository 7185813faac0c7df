"""The prose of a text: what is left when code, formulas, tags and URLs are taken out. Linear in the text."""

from __future__ import annotations

import re
import unicodedata

_OPENER = re.compile(r"```|~~~|`|\$\$|\$|\\\(|\\\[|\\begin\{|(?:https?|ftp|file)://|www\.", re.IGNORECASE)
_CLOSERS = {"```": "```", "~~~": "~~~", "$$": "$$", r"\(": r"\)", r"\[": r"\]", r"\begin{": r"\end{"}
_URL_REST = re.compile(r"[^\s<>\"'`，。；：、！？（）【】「」《》]*")
_MARKUP = re.compile(r"</?[A-Za-z][^<>\s]{0,40}>|\\[A-Za-z]+\*?|&[A-Za-z]{2,8};|[\w.+-]{1,64}@[\w.-]{1,255}", re.ASCII)
_CLOSING_DOLLAR = re.compile(r"(?<![\s\\])\$(?!\d)")


def prose(text: str) -> str:
    """The words a reader would read aloud, NFKC-normalised (full-width letters become ordinary ones).

    A fence that is never closed takes the rest of the text: a program cut off by the token limit is no prose. Any
    other opener without its closer is taken literally.
    """
    scanner = _Scanner(text)
    kept = scanner.run()
    return unicodedata.normalize("NFKC", _MARKUP.sub(" ", kept))


class _Scanner:
    """One pass. Remembers which closers do not come any more, so that no part is searched twice in vain."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.missing: set[str] = set()
        self.paragraph_end = -1
        self.no_dollar_before = -1

    def run(self) -> str:
        kept: list[str] = []
        position = 0
        while (match := _OPENER.search(self.text, position)) is not None:
            kept.append(self.text[position : match.start()])
            end = self._end_of(match.group().lower(), match.end())
            if end < 0:
                kept.append(" ")
                position = match.end()
            else:
                kept.append(" ")
                position = end
        kept.append(self.text[position:])
        return "".join(kept)

    def _end_of(self, opener: str, start: int) -> int:
        """Where the part that `opener` begins ends; -1 when it is not one."""
        if opener == "$":
            return self._end_of_dollar(start)
        if opener == "`":
            end = self.text.find("`", start)
            return -1 if end < 0 or self.text.find("\n", start, end) >= 0 else end + 1
        closer = _CLOSERS.get(opener)
        if closer is None:
            rest = _URL_REST.match(self.text, start)
            return start if rest is None else rest.end()
        end = -1 if closer in self.missing else self.text.find(closer, start)
        if end >= 0:
            end += len(closer)
            return self.text.find("}", end) + 1 or end if opener == r"\begin{" else end
        self.missing.add(closer)
        return len(self.text) if closer in ("```", "~~~") else -1

    def _end_of_dollar(self, start: int) -> int:
        """Pandoc's rule: `$x$` in one paragraph, no space inside the dollars, no digit after: `$5 and $7` is money."""
        if start >= len(self.text) or self.text[start].isspace() or start <= self.no_dollar_before:
            return -1
        if start > self.paragraph_end:
            self.paragraph_end = self.text.find("\n\n", start)
            if self.paragraph_end < 0:
                self.paragraph_end = len(self.text)
        match = _CLOSING_DOLLAR.search(self.text, start, self.paragraph_end)
        if match is None:
            self.no_dollar_before = self.paragraph_end
            return -1
        return match.end()
