r"""Reads the operators of one scalar expression, loosest first: sums, products, signs, powers, `!`, `°` and `%`.

- Two numbers side by side are refused (two candidates), except a mixed number: `3 1/2`, `3\frac12`.
- `1/2x` is (1/2)x, but with a variable below, `a/bc`, the text is ambiguous and refused.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from rayzero.rewards.math.errors import TooLargeError, UnreadableError
from rayzero.rewards.math.reading.scanner import Scanner
from rayzero.rewards.math.reading.text import is_product
from rayzero.rewards.math.values.tree import PI, Constant, Node, Num, Symbol, apply, is_integer, number

_MAX_DEPTH = 40

_VARIABLE_X = re.compile(r"(?<![\w\\ ])[xX](?![A-Za-z])|(?<=[0-9 ])[xX](?! *[\dA-Za-z])")


class Operators(Scanner, ABC):
    """A scanner that reads operators; the operands between them are read by its subclass in parse.py."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    @abstractmethod
    def _primary(self) -> Node:
        """Read one operand."""

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        terms = [self._signed_product()]
        while self._peek() in ("+", "-"):
            terms.append(self._signed_product())
        node = terms[0] if len(terms) == 1 else apply("add", *terms)
        for macro, op in (("\\choose", "binom"), ("\\over", "div")):  # TeX's infix forms
            if self._text.startswith(macro + " ", self._skip()):
                self._at += len(macro)
                node = apply(op, node, self._sum())
        self._depth -= 1
        return node

    def _signed_product(self) -> Node:
        negative = False
        for _ in range(3):
            if self._peek() not in ("+", "-"):
                break
            negative ^= self._take() == "-"
        product = self._product()
        return apply("neg", product) if negative else product

    def _product(self) -> Node:
        start = self._skip()
        node = self._unary()
        bare_integer = is_integer(node) and self._text[start : self._at].strip().isdigit()
        while True:
            char = self._peek()
            if char == "*" or (char in ("x", "X") and self._is_times_letter()):
                self._take()
                node = apply("mul", node, self._unary())
            elif char == "/":
                self._take()
                below = self._unary()
                if self._starts_operand() and not (isinstance(node, Num) and isinstance(below, Num)):
                    raise UnreadableError("ambiguous denominator")
                node = apply("div", node, below)
            elif self._starts_operand():
                node = self._mixed_number(node) if bare_integer and self._fraction_follows() else self._times_next(node)
            else:
                return node
            bare_integer = False

    def _times_next(self, node: Node) -> Node:
        if (self._peek().isdigit() or self._peek() == ".") and not self._may_precede_a_number():
            raise UnreadableError("two numbers side by side")
        return apply("mul", node, self._power())

    def _may_precede_a_number(self) -> bool:
        """`3!4`, `(n-2)2^n`, `n2^n`; but `3 4` are two candidates, and `Box 5` is no product."""
        before = self._text[: self._at].rstrip()
        if before[-1:] in ("!", ")", "]", "}", "|", "⌋", "⌉"):
            return True
        run = re.search(r"(\\?)([A-Za-z]+)$", before[-20:])
        return run is not None and (run[1] != "" or len(run[2]) == 1 or is_product(run[2]))

    def _fraction_follows(self) -> bool:
        return re.match(r"\\frac *(?:\d|\{ *\d+ *\})|\d+ */ *\d+", self._text[self._skip() :]) is not None

    def _mixed_number(self, whole: Node) -> Node:
        match = re.match(r"(\d+) */ *(\d+)", self._text[self._at :])
        if match:
            self._at += match.end()
            top, bottom = match.groups()
            if len(bottom) > 50 or not 0 < int(top) < int(bottom):
                raise UnreadableError("no mixed number")
            return apply("add", whole, apply("div", number(int(top)), number(int(bottom))))
        fraction = self._power()
        parts = fraction.args if not isinstance(fraction, Num | Constant | Symbol) and fraction.op == "div" else ()
        if len(parts) == 2 and all(isinstance(part, Num) for part in parts):
            top_node, bottom_node = parts
            if isinstance(top_node, Num) and isinstance(bottom_node, Num) and 0 < top_node.value < bottom_node.value:
                return apply("add", whole, fraction)
            raise UnreadableError("no mixed number")
        return apply("mul", whole, fraction)

    def _is_times_letter(self) -> bool:
        """`2 x 3`; but `2x 3^x`, where x is a variable elsewhere, is 2x·3^x."""
        before = self._text[: self._at].rstrip()
        if not before[-1:].isdigit() or re.match(r"[xX] *\d", self._text[self._at :]) is None:
            return False
        return _VARIABLE_X.search(self._text) is None

    def _unary(self) -> Node:
        if self._peek() in ("+", "-"):
            sign = self._take()
            node = self._power()
            return apply("neg", node) if sign == "-" else node
        return self._power()

    def _power(self) -> Node:
        node = self._postfix(self._primary())
        if self._peek() == "^":
            self._take()
            node = self._postfix(apply("pow", node, self._superscript()))
        return node

    def _superscript(self) -> Node:
        char = self._peek()
        if char in ("+", "-"):
            self._take()
            exponent = self._superscript()
            return apply("neg", exponent) if char == "-" else exponent
        exponent = self._primary()
        if self._peek() == "^":
            self._take()
            exponent = apply("pow", exponent, self._superscript())
        return exponent

    def _postfix(self, node: Node) -> Node:
        while (char := self._peek()) and char in "!°%":
            self._take()
            if char == "!":
                if self._text[self._at : self._at + 1] == "!":
                    raise UnreadableError("double factorial")
                node = apply("fact", node)
            elif char == "°":
                node = apply("mul", node, apply("div", PI, number(180)))
            else:
                node = apply("div", node, number(100))
        return node
