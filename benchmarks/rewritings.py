"""Gold answers written otherwise, as models write them: every text means what the gold answer means.

A rule that cannot tell whether its text still means the same gives none: what is counted against a grader must be fair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

_INTEGER = re.compile(r"-?\d+")
_DECIMAL = re.compile(r"-?\d+\.\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_GROUPED = re.compile(r"\d,\d\d\d")
_PROSE = re.compile(r"[A-Za-z]{3,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_SCIENTIFIC = re.compile(r"\d[eE][-+]?\d")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{")


def rewritings(gold: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each rule that applies. No text twice, and none that is the gold answer itself."""
    text = gold.strip()
    seen = {gold, text}
    bare = text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "$" and text.count("$") == 2 else text
    for kind, rule in _RULES.items():
        for written in rule(bare):
            if written not in seen:
                seen.add(written)
                yield kind, written


def _replaced(*pairs: tuple[str, str]) -> Callable[[str], Iterator[str]]:
    """All of these at once, as patterns."""

    def rule(text: str) -> Iterator[str]:
        for pattern, new in pairs:
            text = re.sub(pattern, new, text)
        yield text

    return rule


def _is_formula(text: str) -> bool:
    """No prose in it: spaces and signs may be set as one likes."""
    return not (_TEXT.search(text) or _PROSE.search(_COMMAND.sub("", text)) or "$" in text or _SCIENTIFIC.search(text))


def _wrapped(before: str, after: str) -> Callable[[str], Iterator[str]]:
    def rule(text: str) -> Iterator[str]:
        if "$" not in text:
            yield before + text + after

    return rule


def _full_stop(text: str) -> Iterator[str]:
    if text[-1:] not in ".!?…" and not text.endswith(r"\ldots"):
        yield text + "."


def _sized_brackets(text: str) -> Iterator[str]:
    plain = re.sub(r"\\(left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s*", "", text)
    yield plain
    if _is_formula(plain) and r"\{" not in plain and re.fullmatch(r"[^()\[\]]*\([^()\[\]]*\)[^()\[\]]*", plain):
        yield plain.replace("(", r"\left(").replace(")", r"\right)")


def _spaces(text: str) -> Iterator[str]:
    if _is_formula(text) and "\\begin" not in text:
        yield re.sub(r"(?<=[0-9A-Za-z})]) ?([-+=]) ?(?=[0-9A-Za-z\\(])", r" \1 ", text)
        yield re.sub(r"(?<=[0-9A-Za-z})])[ ]([-+=])[ ](?=[0-9A-Za-z\\(])", r"\1", text)


def _thin_spaces(text: str) -> Iterator[str]:
    if _is_formula(text):
        yield text if _GROUPED.search(text) else re.sub(r", ?", r",\\ ", text)
        yield re.sub(r" ?= ?", r"\\,=\\,", text)


def _thousands(text: str) -> Iterator[str]:
    if _INTEGER.fullmatch(text) and len(text.lstrip("-")) > 3:
        for separator in (",", "{,}", r",\!", r"\,"):
            yield f"{int(text):,}".replace(",", separator)


def _whole_number(text: str) -> Iterator[str]:
    if _INTEGER.fullmatch(text) and len(text) < 15 and str(int(text)) == text:
        yield f"{text}.0"
        yield rf"\frac{{{2 * int(text)}}}{{2}}"
        yield f"+{text}" if int(text) > 0 else text


def _decimal(text: str) -> Iterator[str]:
    if _DECIMAL.fullmatch(text):
        yield text + "0"
        yield text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
        value = Fraction(text)
        if value.denominator < 1000:
            yield rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _fraction(text: str) -> Iterator[str]:
    match = _FRACTION.fullmatch(text)
    if not match or int(match[3]) == 0:
        return
    sign, above, below = match.groups()
    yield f"{sign}{above}/{below}"
    yield rf"{sign}\frac{{{2 * int(above)}}}{{{2 * int(below)}}}"
    if sign:
        yield rf"\frac{{-{above}}}{{{below}}}"
    if len(above) == len(below) == 1:
        yield rf"{sign}\frac{above}{below}"
    value = Fraction(int(above), int(below))
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1 and value.denominator <= 64:
        yield f"{sign}{float(value)}"


def _label(text: str) -> Iterator[str]:
    if _INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text) or _FRACTION.fullmatch(text):
        yield f"x = {text}"
        yield rf"\text{{The answer is }} {text}"


def _of_list(text: str) -> Iterator[str]:
    """A bare list of numbers is a set of solutions."""
    parts = [part.strip() for part in text.split(",")]
    number = re.compile(rf"{_INTEGER.pattern}|{_DECIMAL.pattern}|{_FRACTION.pattern}")
    spaced = len(parts) > 1 and ", " in text
    if spaced and all(number.fullmatch(part) for part in parts) and len(set(parts)) == len(parts):
        yield ", ".join(reversed(parts))
        yield r"\{" + ", ".join(parts) + r"\}"
        yield ", ".join(parts[:-1]) + rf" \text{{ and }} {parts[-1]}"
        yield ", ".join(f"x = {part}" for part in parts)


def _power(text: str) -> Iterator[str]:
    if _is_formula(text):
        yield re.sub(r"\^\s*(\d|[a-z])(?![0-9])", r"^{\1}", text)
        yield re.sub(r"\^\{(\d)\}(?!\d)", r"^\1", text)


def _products(text: str) -> Iterator[str]:
    if _is_formula(text) and "\\begin" not in text:
        yield re.sub(r"(?<![\d^_.\\A-Za-z{])(\d+)([a-z])(?![a-z(])", r"\1 \\cdot \2", text)
        yield re.sub(r"(?<![\d^_.\\A-Za-z{])(\d+)([a-z])(?![a-z(])", r"\1 \2", text)


def _intervals(text: str) -> Iterator[str]:
    if re.fullmatch(r"[\[(][^\[\](){}]+,[^\[\](){}]+[\])]", text) and "infty" in text:
        yield rf"x \in {text}"


def _unit_left_out(text: str) -> Iterator[str]:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(?:\\[ ,;!]|~)*\s*\\(?:text|mathrm)\s*\{[\s~]*(cm|m|km|ft|feet|inches|"
                         r"meters|hours|minutes|seconds|dollars|degrees)[\s.]*\}", text)  # fmt: skip
    if match:
        yield match[1]
        yield f"{match[1]} {match[2]}"


_RULES: dict[str, Callable[[str], Iterator[str]]] = {
    "dfrac": _replaced((r"\\frac", r"\\dfrac")),
    "tfrac": _replaced((r"\\d?frac", r"\\tfrac")),
    "frac": _replaced((r"\\[dt]frac", r"\\frac")),
    "sized brackets": _sized_brackets,
    "spaces": _spaces,
    "thin spaces": _thin_spaces,
    "dollars": _wrapped("$", "$"),
    "padded": _wrapped(" ", " "),
    "displaystyle": _wrapped(r"\displaystyle ", ""),
    "braces": _wrapped("{", "}"),
    "full stop": _full_stop,
    "degrees": _replaced((r"\^\s*\{?\\circ\}?", "°")),
    "per cent": _replaced((r"\\%", "%")),
    "unicode": _replaced(
        (r"\\pi(?![a-z])", "π"), (r"\\infty", "∞"), (r"\\leq?(?![a-z])", "≤"), (r"\\geq?(?![a-z])", "≥"),
        (r"\\sqrt\{(\d+)\}", r"√\1"), (r"\\cdot(?![a-z])", "·"), (r"\\times", "×"), (r"\\cup", "∪"), (r"\\pm", "±"),
    ),
    "times": _replaced((r"\\cdot(?![a-z])", r"\\times")),
    "le": _replaced((r"\\leq(?![a-z])", r"\\le"), (r"\\geq(?![a-z])", r"\\ge"), (r"\\neq(?![a-z])", r"\\ne")),
    "brackets of matrices": _replaced((r"\{pmatrix\}", "{bmatrix}")),
    "short roots": _replaced((r"\\sqrt\{(\d)\}", r"\\sqrt\1")),
    "text": _replaced((r"\\text\{", r"\\mathrm{")),
    "thousands": _thousands,
    "whole number": _whole_number,
    "decimal": _decimal,
    "fraction": _fraction,
    "label": _label,
    "list": _of_list,
    "power": _power,
    "products": _products,
    "interval": _intervals,
    "unit left out": _unit_left_out,
}  # fmt: skip
