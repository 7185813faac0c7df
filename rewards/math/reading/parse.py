r"""Reads one scalar expression, in the small language of symbols.py, into a tree. Evaluates nothing.

Rules that are not plain arithmetic:
- Numbers side by side and quotients: see operators.py.
- `^` and `_` take a whole run of digits, `\frac` and `\sqrt` single ones, as TeX does.
- A word is a product of letters only where it is short or all of its letters are usual variables.
"""

from __future__ import annotations

import re

from rayzero.rewards.math.errors import TooLargeError, UnreadableError
from rayzero.rewards.math.reading.numerals import match_number
from rayzero.rewards.math.reading.operators import Operators
from rayzero.rewards.math.reading.scanner import TERMINATORS
from rayzero.rewards.math.reading.symbols import FUNCTIONS, GREEK
from rayzero.rewards.math.values.tree import (
    ONE,
    PI,
    Constant,
    Node,
    Num,
    Symbol,
    apply,
    nodes_of,
    number,
    symbols_of,
)

_MAX_OPERANDS = 400
_GREEK_NAMES = frozenset(GREEK.values()) - {"pi"}
_TRIGONOMETRIC = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])
_NAMED = sorted(
    FUNCTIONS | {"arcsin", "arccos", "arctan", "pi", "infinity", "inf", "infty", "lg"} | _GREEK_NAMES,
    key=len,
    reverse=True,
)
_ALIASES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "lg": "log", "infinity": "inf", "infty": "inf"}
_ACCENTS = {"hat": "hat", "widehat": "hat", "vec": "vec", "overrightarrow": "vec", "bar": "bar", "overline": "bar",
            "tilde": "tilde"}  # fmt: skip
# What stands under an accent: a letter, or two capitals in braces (a vector from A to B).
_ACCENTED = re.compile(r" *(?:\{ *([A-Za-z]|[A-Z]{2}) *\}|([A-Za-z]))")
_USUAL_VARIABLES = frozenset("abcdxyz")
_CLOSING = {"(": ")", "{": "}", "[": "]", "⦃": "⦄"}
# What follows C, A or P: `_5^2`, `_{5}^{2}`, `(5, 2)`.
_COUNT = r" *(?:_ *\{? *(\d+|n) *\}? *\^ *\{? *(\d+) *\}?|\( *(\d+) *, *(\d+) *\))"
# `C_5^2`, `A_5^2`, `P(5, 2)`: how many choices or arrangements.
_COMBINATIONS = re.compile(r"([CAP])" + _COUNT)
# The same with the number in front: `5C2`, `{}_5P_2`, `^nC_2`.
_CHOOSE = re.compile(r"(?:\{ *\} *)?(?:[_^] *\{? *)?(\d+|n) *\}? *([CP]) *_? *\{? *(\d+) *\}?(?!\w)")
# `C(n, 2)`, `C(2n+1, n)`, `C(n, n-1)`: the same of a variable.
_CHOOSE_OF_VARIABLES = re.compile(
    r"C *\( *((?:\d* *[nmN])(?: *[+-] *\d{1,3})?) *, *(\d{1,4}|[a-z]|[nm] *- *\d{1,3}) *\)"
)
# A subscript: `{n+1}`, `{n_{1}}`, `⟪max⟫`, `12`, `k`, `\alpha`.
_AT_ZERO = re.compile(r" *\( *0 *\)")
_SCRIPT = re.compile(
    r"\{([^{}]{1,40}|[^{}]{0,20}\{[^{}]{1,20}\}[^{}]{0,20})\}|⟪([^⟫]{1,20})⟫|(\d+|[A-Za-z])|\\([a-z]+) ?"
)


def parse_expression(text: str) -> Node:
    """Read the whole text as one scalar. Raises UnreadableError where it is none or is ambiguous."""
    return _Parser(text).whole()


def parsed_or_none(text: str) -> Node | None:
    """The text as one scalar, where it is one."""
    try:
        return parse_expression(text)
    except UnreadableError:
        return None


class _Parser(Operators):
    """Operands: numbers, groups, letters, functions and macros."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._operands = 0

    def whole(self) -> Node:
        node = self._sum()
        if self._peek():
            raise UnreadableError(f"unexpected {self._peek()}")
        return node

    def _primary(self) -> Node:
        self._operands += 1
        if self._operands > _MAX_OPERANDS:
            raise TooLargeError("too many operands")
        char = self._peek()
        if counted := self._combinations():
            return counted
        if found := match_number(self._text, self._at):
            self._at = found[1]
            return Num(found[0])
        if char in ("(", "{", "["):
            return self._group(char)
        if char == "|":
            return self._absolute()
        if char in ("⌊", "⌈"):
            self._take()
            inner = self._sum()
            self._expect("⌋" if char == "⌊" else "⌉")
            return apply("floor" if char == "⌊" else "ceil", inner)
        if char == "\\":
            return self._command()
        if char == "∞":
            self._take()
            return Constant("inf")
        if char.isascii() and char.isalpha():
            return self._word()
        raise UnreadableError(f"unexpected {char or 'end'}")

    def _combinations(self) -> Node | None:
        if (match := _CHOOSE_OF_VARIABLES.match(self._text, self._at)) is not None:
            self._at = match.end()
            return apply("binom", parse_expression(match[1]), parse_expression(match[2]))
        match = _COMBINATIONS.match(self._text, self._at)
        if match:
            kind, lower, upper, first, second = match.groups()
            pair = (lower or first, upper or second)
        else:
            match = _CHOOSE.match(self._text, self._at)
            if match is None:
                return None
            pair, kind = (match[1], match[3]), match[2]
        if pair[0] == "n":
            self._at = match.end()
            return apply("binom" if kind == "C" else "perm", Symbol("n"), number(int(pair[1][:9])))
        if len(pair[0]) > 9 or len(pair[1]) > 9 or int(pair[0]) < int(pair[1]):
            return None
        self._at = match.end()
        return apply("binom" if kind == "C" else "perm", number(int(pair[0])), number(int(pair[1])))

    def _group(self, opening: str) -> Node:
        self._take()
        inner = self._sum()
        self._expect({"(": ")", "{": "}", "[": "]"}[opening])
        return inner

    def _absolute(self) -> Node:
        if self._bars:
            raise UnreadableError("nested bars")
        self._take()
        self._bars += 1
        inner = self._sum()
        self._bars -= 1
        self._expect("|")
        return apply("abs", inner)

    def _command(self) -> Node:
        match = re.compile(r"\\([A-Za-z]+) ?").match(self._text, self._at)
        if match is None:
            raise UnreadableError("unknown macro")
        name, self._at = match.group(1), match.end()
        if name == "frac":
            above = self._argument()
            return apply("div", above, self._argument())
        if name == "binom":
            above = self._argument()
            return apply("binom", above, self._argument())
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return self._function(name)
        if name == "pi":
            return PI
        if name in _ACCENTS:
            return self._accented(_ACCENTS[name])
        if name in _GREEK_NAMES or name == "ell":
            return self._symbol(name)
        raise UnreadableError(f"unknown macro \\{name}")

    def _accented(self, accent: str) -> Node:
        match = _ACCENTED.match(self._text, self._at)
        if match is None:
            raise UnreadableError("unknown accent")
        self._at = match.end()
        return Symbol(f"{accent} {match[1] or match[2]}")

    def _argument(self) -> Node:
        r"""Of \frac and the like: a group, or one character or macro."""
        char = self._peek()
        if char == "{":
            return self._group(char)
        if char in "0123456789" and char:
            return number(int(self._take()))
        if char == "\\" or (char.isascii() and char.isalpha()):
            return self._command() if char == "\\" else self._one_letter(self._take())
        raise UnreadableError("missing argument")

    def _root(self) -> Node:
        index: Node = number(2)
        if self._peek() == "[":
            index = self._group("[")
        elif self._peek() == "^":  # sqrt^3(x) means different things to different people
            raise UnreadableError("ambiguous root")
        char = self._peek()
        return apply("root", self._group(char) if char == "(" else self._argument(), index)

    def _function(self, name: str) -> Node:
        base: Node | None = None
        power: Node | None = None
        while self._peek() in ("_", "^"):
            if self._take() == "_":
                base = self._log_base()
            else:
                power = self._superscript()
        if base is not None and name != "log":
            raise UnreadableError("subscript of a function")
        argument = self._function_arguments(name)
        if power == apply("neg", ONE) and name in _TRIGONOMETRIC:
            return apply("a" + name, *argument)
        if name in ("gcd", "lcm") and symbols_of(*argument):  # of variables: no value, and no order
            return Symbol(f"{name}({', '.join(sorted(map(repr, argument)))})")
        node = apply(name, *argument, *([base] if base is not None else []))
        return node if power is None else apply("pow", node, power)

    def _log_base(self) -> Node:
        match = re.compile(r" *(\d)(\d*)( *)").match(self._text, self._at)
        if match is None:
            return self._superscript()
        follows = self._text[match.end() : match.end() + 1]
        whole = not match[2] or (follows and follows not in TERMINATORS)  # \log_10 100, but \log_28
        self._at = match.end(2) if whole else match.end(1)
        return number(int(match[1] + match[2]) if whole else int(match[1]))

    def _function_arguments(self, name: str) -> list[Node]:
        char = self._peek()
        if char in _CLOSING:
            return self._argument_list(char, name)
        if name in ("gcd", "lcm", "max", "min", "exp"):
            raise UnreadableError(f"{name} without brackets")
        node = self._power()
        while self._starts_operand() and not self._function_follows() and self._peek() not in ("(", "["):
            if self._peek().isdigit() and not self._text[: self._at].rstrip().endswith("!"):
                raise UnreadableError("a number after a function's argument")
            node = self._times_next(node)
        if self._peek() == "/" and name in _TRIGONOMETRIC and PI in nodes_of(node):  # \sin \pi/3
            self._take()
            node = apply("div", node, self._power())
        return [node]

    def _argument_list(self, opening: str, name: str) -> list[Node]:
        self._take()
        arguments = [self._sum()]
        while self._peek() == "," and name in ("gcd", "lcm", "max", "min"):
            self._take()
            arguments.append(self._sum())
        self._expect(_CLOSING[opening])
        return arguments

    def _function_follows(self) -> bool:
        match = re.match(r"\\?([A-Za-z]+)", self._text[self._skip() :])
        return match is not None and any(match[1].startswith(name) for name in FUNCTIONS if len(name) > 1)

    def _word(self) -> Node:
        run = re.compile(r"[A-Za-z]+").match(self._text, self._at)
        assert run is not None
        word = run.group()
        first_of_run = not self._text[self._at - 1 : self._at].isalpha() or self._at == 0
        if first_of_run:
            for name in _NAMED:
                if word == name or (word.startswith(name) and len(word) == len(name) + 1 and name in FUNCTIONS):
                    self._at += len(name)
                    return self._named(_ALIASES.get(name, name))
            if len(word) > 3 and not _USUAL_VARIABLES.issuperset(word):
                raise UnreadableError(f"the word {word}")
        return self._one_letter(self._take())

    def _named(self, name: str) -> Node:
        if name in ("pi", "inf"):
            return PI if name == "pi" else Constant("inf")
        if name == "sqrt":
            found = match_number(self._text, self._skip())
            if found:
                self._at = found[1]
                return apply("root", Num(found[0]), number(2))
            return self._root()
        return self._function(name) if name in FUNCTIONS else self._symbol(name)

    def _one_letter(self, letter: str) -> Node:
        if letter in ("f", "g", "h") and self._peek() == "(":
            closing = self._text.find(")", self._at)
            inside = self._text[self._at + 1 : max(closing, 0)]
            if closing > 0 and "(" not in inside and len(inside) < 40:
                self._at = closing + 1
                return Symbol(f"{letter}({inside.replace(' ', '')})")
        if letter in ("e", "i") and self._peek() not in ("_", "'"):
            return Constant(letter)
        return self._symbol(letter)

    def _symbol(self, name: str) -> Node:
        while self._text[self._at : self._at + 1] == "'":
            name += self._take()
        if self._peek() == "_":
            self._take()
            self._skip()
            match = _SCRIPT.match(self._text, self._at)
            if match is None:
                raise UnreadableError("unknown subscript")
            self._at = match.end()
            name += "_" + re.sub(r"[ {}⟪⟫]", "", next(filter(None, match.groups())))
        if at_zero := _AT_ZERO.match(self._text, self._at):  # a product with 0 would equal whatever is 0
            self._at = at_zero.end()
            name += "(0)"
        return Symbol(name)
