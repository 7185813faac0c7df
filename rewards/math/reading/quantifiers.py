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
_LEADING = re.compile(
    rf"^(?:\\forall *|∀ *|⟪ *{_WORDS}(?: +[a-z]+){{0,3}} *⟫ *){_LETTERS}(?: *∈ *{_SET})?"
    r"(?: *⟪[ ,:]*⟫| *[,:;])? *(?=[A-Za-z])",
    re.IGNORECASE,
)
_RESTRICTION = re.compile(
    r"\b(positive|negative|nonnegative|nonzero|even|odd|prime|natural|rational|integers?|complex)\b"
)


def without_quantifier(text: str) -> tuple[str, str]:
    """The function alone, and the domain that was named beside it ("" where none was). Other text stays as it is."""
    if "=" not in text or not ("∈" in text or "⟪" in text or "forall" in text or "∀" in text or " for " in text):
        return text, ""
    for pattern in (_TRAILING, _MEMBER, _LEADING):
        match = pattern.search(text)
        if match is None:
            continue
        rest = (text[match.end() :] if pattern is _LEADING else text[: match.start()]).strip(" ,;")
        if _FUNCTION.match(rest) and "=" in rest:
            restriction = _RESTRICTION.search(match[0])
            return rest, re.sub(r"[ {}]", "", match["set"] or (restriction[1] if restriction else ""))
    return text, ""
