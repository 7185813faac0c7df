r"""Multiple choice: `A`, `(A)`, `\text{A}`, `A. 42`, `选项A`; and several letters, `AC` or `A, C`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LETTER = r"(?P<open>[(\[]?) *(?P<letter>[A-Ja-j]) *(?P<close>[)\]]?)"
_PREFIX = re.compile(
    r"^(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?|选项|选择|选|答案(?:是|为|选)?|故选|应选) *:? *",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"(?<! )(?: *(?:选项|项|option))? *[.。]?$", re.IGNORECASE)
_ALONE = re.compile(rf"^{_LETTER}[.):]?$")
_WITH_CONTENT = re.compile(rf"^{_LETTER}(?P<mark> *[.):,] *| +)(?P<content>(?=.*\S).*)$")
_SEVERAL = re.compile(r"^[(\[{⦃]?([A-H](?:(?:[, ]| *and *| *or *|和|以及|与|&)*[A-H])+)[)\]}⦄]?$")
_ANOTHER = re.compile(
    r"(?i:\b(?:maybe|perhaps|possibly|but|alternatively|otherwise|unless|instead|versus|vs)\b)|"
    r"(?:\bor\b|\band\b|[,/;&|和或]|\bnot\b) *[(\[]?[A-Ja-j](?:[)\].]|\b(?! *[=+*^]))"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The letters chosen, upper case and sorted, and the text beside a single one."""

    letters: str
    content: str = ""


def read_choice(text: str) -> Choice | None:
    """Read text of the small language as a choice; None where it is none, or names a second letter beside its first."""
    plain = re.sub(r"\s+", " ", re.sub(r"[⟪⟫{}]", " ", text)).strip()
    plain = re.sub(r"\( *([A-Ja-j]) *\)", r"(\1)", plain)
    stripped = _SUFFIX.sub("", _PREFIX.sub("", plain))
    if match := _ALONE.match(stripped):
        if bool(match["open"]) and not match["close"]:
            return None
        return Choice(match["letter"].upper()) if match["letter"] < "a" or match["letter"] < "f" else None
    if several := _several(stripped):
        return several
    match = _WITH_CONTENT.match(_PREFIX.sub("", plain))
    if match is None or (match["open"] and not match["close"]):
        return None
    bracketed = re.fullmatch(r"\((?!.*\b[A-J]\b).*\)", match["content"])  # B (42)
    if not (match["mark"].strip() or match["close"] or bracketed):
        return None
    if match["mark"].strip() == ",":
        return None
    content = match["content"].strip()
    if re.match(r"(?:or|and|not|nor)\b|[,/;|&和或]", content):
        return None
    if _ANOTHER.search(content) or re.fullmatch(r"[(\[]?[A-Ja-j][)\]]?", content):
        return None
    return Choice(match["letter"].upper(), content)


def is_choice(text: str) -> Choice | None:
    """A gold answer that is a choice: a capital or bracketed letter, a letter with content, or several capitals."""
    plain = re.sub(r"[⟪⟫{}]", " ", text).strip()
    if re.fullmatch(r"[a-z]\.?", plain) or re.fullmatch(r"\[? *[a-j] *\]?", plain):
        return None
    return read_choice(text)


def _several(text: str) -> Choice | None:
    match = _SEVERAL.match(re.sub(r"[(\[] *([A-H]) *[)\]]", r"\1", text))
    if match is None or re.search(r"\bor\b|或", text):
        return None
    letters = re.findall(r"[A-H]", re.sub(r"and", "", match[1]))
    return Choice("".join(sorted(letters))) if len(set(letters)) == len(letters) else None
