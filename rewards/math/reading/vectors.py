r"""Vectors written by their unit vectors: `\hat{i} + 2\hat{j}`, `\mathbf{i} + 2\mathbf{j}` and `î + 2ĵ` are ⟨1, 2⟩."""

from __future__ import annotations

import re

from rayzero.rewards.math.errors import UnreadableError
from rayzero.rewards.math.reading.parse import parse_expression
from rayzero.rewards.math.values.answer import Items, Scalar
from rayzero.rewards.math.values.equality import same_expression
from rayzero.rewards.math.values.tree import Node, apply, number, substituted, symbols_of

_ACCENT = r"\\(?:mathbf|boldsymbol|bm|bold|pmb|textbf|hat|widehat|vec|overrightarrow)"
_UNIT = re.compile(rf"{_ACCENT} *(?:\{{ *\\?(?P<group>[ijk])(?:math)? *\}}|\\?(?P<bare>[ijk])(?:math)?(?![A-Za-z]))")
_COMBINING = re.compile("(?<![A-Za-z\\\\])([ijkı])[\u0302\u20d7]")
_COMPOSED = {"î": "\\hat{i}", "ĵ": "\\hat{j}"}
_PLAIN = re.compile(r"(?<![A-Za-z\\{_^])([ijk])(?![A-Za-z}_^'])")
_AXES = ("hat i", "hat j", "hat k")


def with_unit_vectors(text: str) -> str:
    r"""LaTeX in which every unit vector is `\hat{i}`, if there are others than i: that may be the root of −1."""
    if not text.isascii():
        for composed, macro in _COMPOSED.items():
            text = text.replace(composed, macro)
        text = _COMBINING.sub(lambda match: f"\\hat{{{match[1].replace('ı', 'i')}}}", text)
    if "\\" not in text or not ("j" in text or "k" in text):
        return text
    letters = {match["group"] or match["bare"] for match in _UNIT.finditer(text)}
    if not letters.intersection("jk"):
        return text
    for _ in range(2):  # \mathbf{\hat{i}}
        text = _UNIT.sub(lambda match: f"\\hat{{{match['group'] or match['bare']}}}", text)
        text = re.sub(rf"{_ACCENT} *\{{ *(\\hat\{{[ijk]\}}) *\}}", r"\1", text)
    return text


def with_plain_units_marked(answer: str, gold: str) -> str:
    r"""An answer `i - 3j` where the gold answer's unit vectors are marked, in the small language."""
    if "\\hat {" not in gold or "\\hat" in answer or not re.search(_PLAIN.pattern.replace("ijk", "jk"), answer):
        return answer
    return _PLAIN.sub(r"\\hat {\1}", answer)


def read_unit_vectors(text: str) -> Items | None:
    """A sum of multiples of unit vectors, text of the small language; None where it is anything else."""
    if "\\hat {" not in text:
        return None
    try:
        node = parse_expression(text)
    except UnreadableError:
        return None
    axes = [axis for axis in _AXES if axis in symbols_of(node)]
    if not axes:
        return None
    parts = [_component(node, axis) for axis in _AXES]
    rebuilt = apply("add", *(apply("mul", part, parse_expression(f"\\hat {{{axis[-1]}}}"))
                             for part, axis in zip(parts, _AXES, strict=True)))  # fmt: skip
    if not same_expression(node, rebuilt):
        return None
    return Items("⟨⟩", tuple(map(Scalar, parts if axes[-1] == "hat k" else parts[:2])))


def _component(node: Node, axis: str) -> Node:
    return substituted(node, {name: number(int(name == axis)) for name in _AXES})
