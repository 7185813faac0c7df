r"""What stands beside a function and only says where it holds: `f(x) = 2x \text{ for all } x \in \mathbb{R}`."""

from __future__ import annotations

import re

_FUNCTION = re.compile(r"^[A-Za-z](?:'*| *_ *\{? *\w *\}?) *(?:\( *[A-Za-z](?: *, *[A-Za-z])* *\))? *=")
_SET = r"(?P<set>[ℝℤℕℚℂ](?: *[_^] *\{? *(?:\+|\*|[<>≤≥] *0|≥? *0|> *0) *\}?)?|\[ *0 *, *∞ *\)|\( *0 *, *∞ *\))"
_LETTERS = r"[A-Za-z](?: *_ *\{? *\d *\}?)?(?: *, *[A-Za-z](?: *_ *\{? *\d *\}?)?)*"
_WORDS = r"(?:for +(?:all|any|every|each|some|arbitrary|real|constants?)|where|with|and|对(?:于)?(?:任意|所有)的?)"
_TRAILING = re.compile(
    rf"[ ,;(]*(?:\\(?:forall|quad|qquad) *|∀ *|⟪[ ,(]*{_WORDS}(?: +[a-z]+){{0,3}} *⟫ *|"
    rf"{_WORDS}(?: +[a-z]{{3,}}){{0,3}} +)"
    rf"{_LETTERS}(?: *∈ *{_SET})?(?: *⟪ *(?:is|are) +[a-z ]+⟫)?(?: *⟪ *(?:real|constants?|integers?) *⟫)?[ .)]*$",
    re.IGNORECASE,
)
_MEMBER = re.compile(rf"(?: *,| *\(|  ) *(?:⟪ *(?:where|with|for) *⟫ *)?{_LETTERS} *∈ *{_SET}[ .)]*$")
# `n ≥ 1` beside a sequence or a function of n; of x it would take numbers away.
_INDEX = re.compile(
    rf"(?: *,| *\(|  | *⟪[ ,(]*(?:{_WORDS}|for|when|if)(?: +[a-z]+){{0,3}} *⟫) *(?P<index>[kmn]) *"
    r"(?P<bound>[≥>] *[0-3]) *[ .)]*$"
)
_LEADING = re.compile(
    rf"^(?:\\forall *|∀ *|⟪ *{_WORDS}(?: +[a-z]+){{0,3}} *⟫ *){_LETTERS}(?: *∈ *{_SET})?"
    r"(?: *⟪[ ,:]*⟫| *[,:;])? *(?=[A-Za-z])",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"[∈⟪∀≥>]|forall| for ")
_RESTRICTION = re.compile(
    r"\b(positive|negative|nonnegative|nonzero|even|odd|prime|natural|rational|integers?|complex)\b"
)


def without_quantifier(text: str) -> tuple[str, str]:
    """The function alone, and the domain that was named beside it ("" where none was). Other text stays as it is."""
    if "=" not in text or not _SIGNS.search(text):
        return text, ""
    for pattern in (_TRAILING, _MEMBER, _LEADING, _INDEX):
        match = pattern.search(text)
        if match is None:
            continue
        rest = (text[match.end() :] if pattern is _LEADING else text[: match.start()]).strip(" ,;")
        if _FUNCTION.match(rest) and "=" in rest:
            if pattern is _INDEX:
                if match["index"] not in rest:  # another unknown's, and so a part of the answer
                    continue
                return rest, _bound(match["bound"].replace(" ", ""))
            restriction = _RESTRICTION.search(match[0])
            return rest, re.sub(r"[ {}]", "", match["set"] or (restriction[1] if restriction else ""))
    return text, ""


def _bound(text: str) -> str:
    """From 0 or 1 on is what ℕ means."""
    return "ℕ" if text in ("≥0", "≥1", ">0") else text
