"""Takes off what stands around an answer and is no part of it."""

from __future__ import annotations

import re

from rayzero.rewards.math.split import enclosed

_PREAMBLE = re.compile(
    r"^(?:⟪? *exactly(?=[ ⟫]+\d)|⟪? *(?:(?:so|thus|hence|therefore)[, ]+)?(?:the )?(?:final |correct )?"
    r"(?:answer|ans|result|solution|solutions|value)s?(?: is| are|:|=)+:?|答案?(?:是|为)?[::]|答案(?:是|为)|"
    r"解得?[::]|(?:一|总)?共(?:有|计)?(?=[\d ])|\\therefore|(?:故|所以)?答案(?:是|为)?[::]?|等于) *⟫? *(?=\S)",
    re.IGNORECASE,
)
_ONLY = re.compile(r"^⟪? *[Oo]nly(?:(?= +[A-Za-z\\]? *=)|(?= *⟫)) *⟫? *(?=\S)|(?<=\S) *,? *⟪ *only *⟫$")
_COLON_LABEL = re.compile(r"^⟪ *[A-Za-z][A-Za-z ]{3,40}(?:⟫ *:|: *⟫) *(?=[-\d$€£¥\\(\[])")
_BASE_IN_WORDS = re.compile(r"^([0-9A-F.]+) *[(⟪ ]*(?:in )?base[ -]*⟫? *(\d+|[a-z]{3,9}) *[)⟫]*$")
_BUILDER = re.compile(r" *[a-z] *(?:∈ *ℝ *)?[|:]")
_COMMA = re.compile(r"[,;]")


def clean(text: str) -> str:
    """Without a preamble ("the answer is"), final punctuation, or a group around all of it."""
    for _ in range(4):
        before = text
        text = re.sub(r"^<([^<>]*,[^<>]*)>$", r"⟨\1⟩", re.sub(r'^"([^"]*)"$', r"\1", text.strip()))
        text = _PREAMBLE.sub("", text.strip())
        if "nly" in text:
            text = _ONLY.sub("", text).strip()
        if text.endswith("⟫"):
            text = re.sub(r"(?<=[^\W\d_]{2})[.!。] *⟫$", "⟫", text)  # 36⟪ ways.⟫
        text = re.sub(r"(?<![.\s]) *[.,;:]+$", "", text).strip() if not text.endswith("…") else text
        text = _COLON_LABEL.sub("", text)
        around = enclosed(text)
        if around and around[0] == "{}" and not _COMMA.search(around[1]) and not _BUILDER.match(around[1]):
            text = around[1]
        if (
            around
            and around[0] == "⟪⟫"
            and (re.search(r"[\d=<>≤≥]", around[1]) or re.fullmatch(r" *[A-Za-z] *", around[1]))
        ):
            text = around[1]
        text = _BASE_IN_WORDS.sub(r"\1_{\2}", text)
        if text == before:
            break
    return text
