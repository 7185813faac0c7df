r"""What may stand before `=` as a mere name of the value: `x`, `f(2)`, `AB`, `\angle A`, `a+b`, `Area`, `(x,y)`."""

from __future__ import annotations

import re

from rayzero.rewards.math.errors import UnreadableError
from rayzero.rewards.math.reading.parse import parse_expression
from rayzero.rewards.math.reading.symbols import FUNCTIONS
from rayzero.rewards.math.split import enclosed
from rayzero.rewards.math.values.tree import Apply, Num, nodes_of, symbols_of

_GREEK_OR_LETTER = r"(?:[A-Za-z]|\\[A-Za-z]+ ?)"
_SCRIPT = r"(?: *_ *(?:\{[^{}=]*\}|[A-Za-z0-9*]|⟪[^⟪⟫]*⟫)| *\^ *\{? *(?:[A-Z*']|-1 *\}? *(?=\()) *\}?)"
_SIMPLE = re.compile(
    rf"^\|? *{_GREEK_OR_LETTER}'*{_SCRIPT}*'*(?: *\([A-Za-z0-9 ,+\-*/\\{{}}']*\))? *\|?$"
    r"|^[A-Za-z]+ *\([^()]{1,40}\)$|^\([a-z] *° *[a-z]\) *\([^()=]{1,20}\)$"  # P(X = 2), (f∘g)(2)
    r"|^[A-Z]'? *(?:[∪∩∖] *[A-Z]'? *)+$|^(?:\\sigma|s|\\chi|R) *\^ *\{?2\}?$"
    r"|^[a-z]\d$|^[A-Z]{2,5}$|^\|[A-Z]{2}\|$"
    r"|^m? *\\(?:angle|triangle|overline|vec|hat|bar|widehat|overrightarrow|Delta|measuredangle)"
    r" *\{? *[A-Za-z]{1,4} *\}?$"
    r"|^\\(?:vec|hat|bar|overline) *[a-z]$"
)
_NAME = rf"(?:\\(?:triangle|angle) )?(?:[A-Z]{{1,3}}'*|[a-z]|\\[a-z]+ ?){_SCRIPT}?"
_RATIO = re.compile(rf"^{_NAME}(?: *: *{_NAME}){{1,4}}$")
_SEGMENT = rf"(?:[A-Z]{{1,3}}'*{_SCRIPT}?)"
_QUOTIENT = re.compile(rf"^(?:\\frac *\{{ *{_SEGMENT} *\}} *\{{ *{_SEGMENT} *\}}|{_SEGMENT} */ *{_SEGMENT})$")
_OF_TWO = re.compile(rf"^\\frac *\{{ *({_NAME}) *\}} *\{{ *({_NAME}) *\}}$|^({_NAME}) */ *({_NAME})$")
# At least one capital, or `2n` would name a matrix.
_OF_MATRICES = re.compile(r"^(?=.*[A-Z])(?:\\top |[-+*\d(){}^ A-Zntk'])+$")
_UPRIGHT = re.compile(r"⟪ *([A-Za-z]|[A-Z]{2,5}) *⟫")
_ROOTS = frozenset(["x", "y", "z", "t", "\\lambda"])
_WORDS = re.compile(
    r"^(?:⟪[^⟪⟫=]{1,60}⟫ *(?:\\(?:triangle|angle|odot) *)?[A-Z]{0,5}|[A-Za-z][A-Za-z ]{2,40}|"
    r"[\u4e00-\u9fff]{1,12}[A-Z]{0,4})$"
)
_VECTOR = re.compile(r"^\\begin *\{[pb]matrix\} *[a-z](?: *\\\\ *[a-z])+ *\\end *\{[pb]matrix\}$")
_COMPUTATION = re.compile(r"^\\(?:sum|prod|int|lim|max|min|det|iint|oint|limsup|liminf)\b|^\[[A-Z]{3,5}\]$")
# Words of logic: `no x = 3` and `x or y = 3` say more than a name would.
_NO_LABEL = re.compile(r"\b(?:or|and|not|mod|if|no|either|neither)\b|[或不]", re.IGNORECASE)
_CONSTANTS = frozenset(["e", "i", "\\pi"])


def is_label(text: str) -> bool:
    """The text only names a value."""
    text = text.strip()
    if not text or len(text) > 80 or _NO_LABEL.search(text) or text in _CONSTANTS:
        return False
    if _is_ratio(text) or _SIMPLE.match(text) or _WORDS.match(text) or _COMPUTATION.match(text) or _VECTOR.match(text):
        return True
    return bool(label_names(text)) or is_sought_expression(text)


def label_names(text: str) -> list[str]:
    """Names in a tuple of variables: `(x, y)`; empty for anything else."""
    around = enclosed(text.strip())
    if around is None or around[0] != "()":
        return []
    names = [name.strip() for name in around[1].split(",")]
    return (
        names if len(names) > 1 and all(re.fullmatch(rf"{_GREEK_OR_LETTER}{_SCRIPT}?", name) for name in names) else []
    )


def is_plain_symbol(text: str) -> bool:
    """A variable or function name, as opposed to words: two of them that differ contradict each other."""
    text = _UPRIGHT.sub(r"\1", text.strip())
    return _is_ratio(text) or _SIMPLE.match(text) is not None or is_matrix_label(text) or is_sought_expression(text)


def is_matrix_label(text: str) -> bool:
    """`A^{-1}`, `2A + B^T`: what names a value only where that is a matrix."""
    return _OF_MATRICES.match(text.strip() + " ") is not None


def is_names_of_roots(labels: list[str]) -> bool:
    """`x_1`, `x_2`, …: the solutions of one equation, which have no order. `a_1`, `a_2` are two quantities."""
    stems = {label.partition("_")[0] for label in labels}
    numbers = sorted(label.partition("_")[2] for label in labels)
    return stems <= _ROOTS and len(stems) == 1 and numbers == sorted(map(str, range(1, len(labels) + 1)))


def same_label(first: str, second: str) -> bool:
    """The same name; the argument may be omitted: `y` and `y(x)`."""
    one, other = normal_label(first), normal_label(second)
    if one == other:
        return True
    bare = [re.sub(r"(?<=^[A-Za-z])\([a-z]\)$", "", label) for label in (one, other)]
    return bare[0] == bare[1] and (one == bare[0] or other == bare[1])


def _is_ratio(text: str) -> bool:
    r"""`AB:CD`, `x:y:z`, `\frac{AB}{CD}`."""
    return _RATIO.match(text) is not None or _QUOTIENT.match(text) is not None


def normal_label(text: str) -> str:
    """For comparison: without spaces and groups, the ends of a segment in order."""
    text = re.sub(r"^([a-z])(\d)$", r"\1_\2", _UPRIGHT.sub(r"\1", text.strip()))
    text = _OF_TWO.sub(lambda names: f"{names[1] or names[3]}:{names[2] or names[4]}", text)
    plain = re.sub(r"[ {}|]|\\(?:overline|vec|bar)", "", text)
    if not (_is_ratio(text) or re.fullmatch("[A-Z]{2}", plain)):
        return plain  # matrices do not commute: (AB)^{-1} is not (BA)^{-1}
    return re.sub("(?<![A-Z])[A-Z]{2}(?![A-Z])", lambda ends: "".join(sorted(ends[0])), plain)


def is_sought_expression(text: str) -> bool:
    r"""`a+b`, `xy`, `\frac{a}{b}`, `\sin A`, `a^2+b^2`: no numbers but exponents, and two variables or a function."""
    if _SIMPLE.match(text.strip()) or _is_ratio(text.strip()):
        return False
    try:
        node = parse_expression(text)
    except UnreadableError:
        return False
    powers = [part for part in nodes_of(node) if isinstance(part, Apply) and part.op in ("pow", "root", "log")]
    aside = {id(part.args[1]) for part in powers if len(part.args) == 2}  # exponents and bases of logarithms
    if any(isinstance(part, Num) and id(part) not in aside for part in nodes_of(node)):
        return False
    names = symbols_of(node)
    return len(names) >= 2 or (
        len(names) == 1 and isinstance(node, Apply) and (node.op in FUNCTIONS or node.op == "fact")
    )
