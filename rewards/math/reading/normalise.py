r"""Rewrites LaTeX, Unicode and full-width text to the small language of symbols.py, in one pass over the text.

`normalise(r"x \in \left[1,\,\dfrac12\right)")` is `x ∈ [1,\frac12)`.
"""

from __future__ import annotations

import re
import unicodedata

from rayzero.rewards.math.errors import TooLargeError, UnreadableError
from rayzero.rewards.math.reading.escapes import single_backslashes
from rayzero.rewards.math.reading.symbols import (
    DECIMAL_COMMA,
    DROPPED_WITH_ARGUMENT,
    GLUE,
    MACROS,
    PLAIN_WRAPPERS,
    SPACING,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    SYNONYM_COMMANDS,
    TEXT_MACROS,
    UNICODE,
    VULGAR,
)
from rayzero.rewards.math.reading.vectors import with_unit_vectors
from rayzero.rewards.math.split import words

_MAX_DEPTH = 40
_MACRO = re.compile(r"\\([A-Za-z]+\*?|.|$)", re.DOTALL)
# The small language's own brackets: an answer that brings them could pretend to be read already.
_RESERVED = re.compile("[⟪⟫⦃⦄]")
# 1，000 in full-width signs; elsewhere that comma parts the elements of a list.
_FULL_WIDTH_COMMA_IN_NUMBER = re.compile(r"(?<=[０-９])，(?=[０-９]{3}(?![０-９]))|(?<=\d)，(?=0\d\d(?!\d))")
# The French ]0, 1[ for (0, 1). Behind an operator or a space the bracket may open something else.
_REVERSED = re.compile(r"(?<![^ ∪∩∈∖=])([\[\]])([^\[\]()]+,[^\[\]()]+)([\[\]])(?![^ ∪∩∖.,])")
_GROUPED = re.compile(r"(?<![\w.'])\d{1,3}(?:(?:'\d{3})+|(?:_\d{3})+|(?:\.\d{3}){2,})(?![\w'.]\d|\w)")
"""1'234'567, 1.234.567 and 1_234_567: no base has three digits."""
# TeX's own `\root 3 \of 8`.
_ROOT_OF = re.compile(r"\\root *\{? *(\w) *\}? *\\of(?![A-Za-z])")
# f^{\prime\prime} is f'', and no power.
_PRIMES = re.compile(r" *\^ *(?:\{ *'[' ]*\}|'+)")
_DERIVATIVE = re.compile(
    r"\\frac *\{ *d *(?:\^ *\{? *(?P<order>[23]) *\}? *)?(?P<function>[a-z]) *\} *"
    r"\{ *d *[a-z] *(?:\^ *\{? *(?P=order) *\}?)? *\}"
    r"|(?<![A-Za-z\\])d(?P<plain>[a-z])/d[a-z](?![A-Za-z])"
)
"""dy/dx is y', and no quotient of products."""
_TIME_UNIT = re.compile(r"([\d})⟫]) *\\(min|sec) *(?=$|[.,;:/)\]}⦄⟫]|⟪)")
r"""\mathrm{min} behind a number, with nothing that it could be the minimum of."""
_BLACKBOARD = {"R": "ℝ", "Z": "ℤ", "N": "ℕ", "Q": "ℚ", "C": "ℂ"}
_FUNCTION_IN_TEXT = frozenset(
    words("sin cos tan cot sec csc arcsin arccos arctan ln log lg lcm gcd exp max min sinh cosh tanh")
)


def normalise(text: str) -> str:
    """Rewrite to the small language. Raises UnreadableError for unbalanced groups, TooLargeError for deep ones."""
    text = _unicode(with_unit_vectors(single_backslashes(_RESERVED.sub("", text))))
    text = _without_math_delimiters(text)
    text = _ROOT_OF.sub(r"\\sqrt[\1]", text)
    text = _Rewriter(text).rewrite(0)
    text = re.sub(r"(?<=\d)\{,\}(?=\d)(?!\d{3}(?!\d))", DECIMAL_COMMA, text)  # 3{,}14
    text = text.replace("{,}", ",").replace("{:}", ":").replace("⟫⟪", "")
    text = re.sub(r"\^ *(?:\{ *° *\}|°)", "°", text)
    if "'" in text:
        text = _PRIMES.sub(lambda match: match[0].count("'") * "'", text)
    if "d" in text:
        text = _DERIVATIVE.sub(
            lambda match: (match["function"] or match["plain"]) + int(match["order"] or 1) * "'", text
        )
    if "⟪" in text:
        text = re.sub(r"⟪ *, *(?=(?:where|with|for)\b)", ", ⟪", text)
    if "\\" in text:
        text = _TIME_UNIT.sub(r"\1 ⟪\2⟫", text)
    text = re.sub(r"(?<=\d)\^ *(?:\{ *[oO] *\}|[oO](?![A-Za-z]))", "°", text)  # 45^o
    text = re.sub(r"\{ *\} *\^ *\{? *(\d+) *\}? */ *_ *\{? *(\d+) *\}?", r"\\frac{\1}{\2}", text)  # {}^3/_4
    text = re.sub(r"\\frac *\{ *(⟪[^{}]*)\} *\{ *(⟪(?:[^{}]|\{\d\})*)\}", r"\1/\2", text)  # \frac{m}{s}
    text = re.sub(r"(?<=[0-9A-F])⟪ *([A-F]+) *⟫(?=[0-9A-F]*\)? *_)", r"\1", text)  # digits of another base
    text = re.sub(r"<=|=<", "≤", re.sub(r">=", "≥", re.sub(r"(?<!\d)!=|=/=|<>", "≠", re.sub(r"={2,3}", "=", text))))
    text = re.sub(r"\.{3,}", "…", re.sub(r"\*\*", "^", text))
    text = _GROUPED.sub(lambda match: re.sub("['_.]", "", match[0]), text)
    text = _REVERSED.sub(_half_open, text)
    return re.sub(r"\s+", " ", text).strip()


def _half_open(match: re.Match[str]) -> str:
    """`]2, 3[` is `(2, 3)`."""
    opening, inside, closing = match.groups()
    return f"{'(' if opening == ']' else '['}{inside}{')' if closing == '[' else ']'}"


def _unicode(text: str) -> str:
    """Full-width forms, mathematical letters, vulgar fractions, super- and subscripts."""
    if text.isascii():
        return text
    text = re.sub(r"^(\s*[A-Ja-jＡ-Ｊ])、(?!\s*[A-JＡ-Ｊ]\b)", r"\1. ", text)
    text = _FULL_WIDTH_COMMA_IN_NUMBER.sub(",", text).replace("，", ", ").replace("、", ", ").replace("；", "; ")
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+", lambda m: "^{" + "".join(SUPERSCRIPTS[c] for c in m.group()) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+", lambda m: "_{" + "".join(SUBSCRIPTS[c] for c in m.group()) + "}", text)
    text = re.sub(r"(\d?)([" + "".join(VULGAR) + "])", _vulgar, text)
    text = re.sub(r"√ *(\d+(?:\.\d+)?)", r"\\sqrt{\1}", text)
    return "".join(map(_character, text))


def _vulgar(match: re.Match[str]) -> str:
    whole, fraction = match.groups()
    top, bottom = VULGAR[fraction].split("/")
    return f"{whole}\\frac{{{top}}}{{{bottom}}}"


def _character(char: str) -> str:
    if char < "\x7f":
        return char
    if char in UNICODE:
        return UNICODE[char]
    if "\uff01" <= char <= "\uff5e":  # full-width ASCII
        return chr(ord(char) - 0xFEE0)
    if "\u3371" <= char <= "\u33df":  # ㎡, ㎝
        return re.sub(r"^(\D+)(\d?)$", r"⟪\1⟫^{\2}", unicodedata.normalize("NFKC", char)).replace("^{}", "")
    if "\U0001d400" <= char <= "\U0001d7ff":  # 𝑥, 𝟑
        plain = unicodedata.normalize("NFKC", char)
        return UNICODE.get(plain, plain)
    return char


def _without_math_delimiters(text: str) -> str:
    r"""Drop $…$, \(…\), \[…\] and Markdown's ** and `; a single unescaped $ is a currency sign."""
    text = re.sub(r"^\s*(\*\*|__|`)(?!\*)(.*)\1\s*$", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    return text


class _Rewriter:
    """Walks the text once; groups are rewritten recursively up to a depth."""

    def __init__(self, text: str, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        self._text = text
        self._depth = depth

    def rewrite(self, start: int) -> str:
        """The whole text from `start` on, rewritten."""
        out: list[str] = []
        position = start
        while position < len(self._text):
            char = self._text[position]
            if char == "\\":
                position = self._macro(position, out)
                continue
            leading = self._depth == 0 and not self._text[:position].strip()
            out.append(("≈" if leading else " ") if char == "~" else char)
            position += 1
        return "".join(out)

    def _macro(self, position: int, out: list[str]) -> int:
        """Rewrite the macro at `position`; returns where the text goes on."""
        match = _MACRO.match(self._text, position)
        assert match is not None
        name, end = match.group(1).rstrip("*"), match.end()
        if name in TEXT_MACROS or name == "mathbb":
            return self._text_macro(name, end, out)
        if name in PLAIN_WRAPPERS:
            content, end = self._argument(end)
            out.append("{" + content + "}" if len(content) > 1 else content)
            return end
        if name in DROPPED_WITH_ARGUMENT:
            return self._argument(end)[1]
        if name == "textcolor":
            return self._argument(end)[1]
        if name in GLUE:
            return self._delimiter(end)
        if name in SPACING:
            out.append(" ")
        elif name == "\\":
            out.append("\\\\")
        elif name in MACROS:
            out.append(MACROS[name])
        elif name == "not":
            return self._negated(end, out)
        else:
            out.append(f"\\{SYNONYM_COMMANDS.get(name, name)} ")
        return end

    def _delimiter(self, position: int) -> int:
        r"""After \left or \right: an empty delimiter `.` vanishes with it."""
        return position + 1 if self._text[position : position + 1] == "." else position

    def _negated(self, position: int, out: list[str]) -> int:
        rest = self._text[position:].lstrip()
        for symbol, negated in (("=", "≠"), ("\\in", "∉"), ("\\equiv", "≢")):
            if rest.startswith(symbol):
                out.append(negated)
                return len(self._text) - len(rest) + len(symbol)
        raise UnreadableError("unknown negation")

    def _text_macro(self, name: str, position: int, out: list[str]) -> int:
        raw, end = self._raw_argument(position)
        if name == "mathbb":
            out.append(_BLACKBOARD.get(raw.strip(), raw))
            return end
        content = _Rewriter(raw, self._depth + 1).rewrite(0)
        word = content.strip()
        applied = re.match(r"\s*(?:\\left\s*)?\(", self._text[end : end + 12]) is not None
        if (applied or name in ("operatorname", "mathrm", "rm", "mathop")) and word in _FUNCTION_IN_TEXT:
            out.append(MACROS.get(word, f"\\{word} "))
        elif name in ("mathrm", "rm", "operatorname") and word in ("i", "e", "d", "C", "P", "A") and word == content:
            out.append(word)
        elif word in ("°", "%", "$", "π", "\\pi") or not re.search(r"[^\W\d_]|⟪", content):
            out.append(content)  # \text{5}, \text{, }: not words
        else:
            out.append(f"⟪{re.sub('[⟪⟫]', '', content)}⟫")
        return end

    def _argument(self, position: int) -> tuple[str, int]:
        raw, end = self._raw_argument(position)
        return _Rewriter(raw, self._depth + 1).rewrite(0), end

    def _raw_argument(self, position: int) -> tuple[str, int]:
        """The group, or single character, that follows; and where it ends."""
        while position < len(self._text) and self._text[position] in " \n\t":
            position += 1
        if self._text[position : position + 1] != "{":
            return self._text[position : position + 1], position + 1
        level = 0
        for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(self._text, position):
            level += {"{": 1, "}": -1}.get(match.group(), 0)
            if level == 0:
                return self._text[position + 1 : match.start()], match.end()
        raise UnreadableError("a brace is never closed")
