"""Equations and inequalities of several variables, up to a constant factor: `y = 2x + 3` is `2x − y + 3 = 0`."""

from __future__ import annotations

from rayzero.rewards.math.values.answer import Equation, Inequality, Named, Scalar
from rayzero.rewards.math.values.equality import is_constant, proportional, same_expression
from rayzero.rewards.math.values.exact import NotRationalError, rational_value
from rayzero.rewards.math.values.tree import ONE, Apply, Node, Num, apply, nodes_of, number, symbols_of

_MIRRORED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠"}


def as_equation(answer: object) -> Equation | None:
    """An equation, or a named scalar whose label is an expression."""
    if isinstance(answer, Equation):
        return answer
    if isinstance(answer, Named) and answer.label_node is not None and isinstance(answer.value, Scalar):
        return Equation(answer.label_node, answer.value.node)
    return None


def same_equation(answer: Equation, gold: Equation) -> bool:
    """left − right agrees up to a factor, denominators cleared where they cannot vanish on a solution.

    Of identities left − right is 0: only the same one, sign by sign, is equal.
    """
    if (answer.left, answer.right) == (gold.left, gold.right):
        return True
    first, second = _difference(answer.left, answer.right), _difference(gold.left, gold.right)
    if proportional(first, second) is not None:
        return True
    (above_first, below_first), (above_second, below_second) = _fraction(first), _fraction(second)
    return (
        proportional(above_first, above_second) is not None
        and _never_vanishes(below_first, above_first)
        and _never_vanishes(below_second, above_second)
    )


def same_inequality(answer: Inequality, gold: Inequality) -> bool:
    """left − right agrees up to a positive factor, or up to a negative one with the sign turned."""
    if len(answer.ops) != 1 or len(gold.ops) != 1:
        return (answer.ops == gold.ops and all(map(same_expression, answer.sides, gold.sides))) or (
            tuple(_MIRRORED[op] for op in reversed(answer.ops)) == gold.ops
            and all(map(same_expression, reversed(answer.sides), gold.sides))
        )
    factor = proportional(_difference(*answer.sides), _difference(*gold.sides))
    if factor is None:
        return False
    return (answer.ops[0] if factor > 0 else _MIRRORED[answer.ops[0]]) == gold.ops[0]


def _difference(left: Node, right: Node) -> Node:
    return apply("add", left, apply("neg", right))


def _fraction(node: Node) -> tuple[Node, Node]:
    """Numerator and denominator without fractions in them."""
    if not isinstance(node, Apply):
        return node, ONE
    if node.op == "neg":
        above, below = _fraction(node.args[0])
        return apply("neg", above), below
    if node.op == "mul":
        (a, b), (c, d) = map(_fraction, node.args)
        return _times(a, c), _times(b, d)
    if node.op == "div":
        (a, b), (c, d) = map(_fraction, node.args)
        return _times(a, d), _times(b, c)
    if node.op == "add":
        above, below = _fraction(node.args[0])
        for term in node.args[1:]:
            c, d = _fraction(term)
            above, below = apply("add", _times(above, d), _times(c, below)), _times(below, d)
        return above, below
    if node.op == "pow" and isinstance(node.args[1], Num) and node.args[1].value.denominator == 1:
        above, below = _fraction(node.args[0])
        exponent = node.args[1].value
        powers = (
            apply("pow", above, number(abs(exponent))),
            ONE if below == ONE else apply("pow", below, number(abs(exponent))),
        )
        return powers if exponent >= 0 else (powers[1], powers[0])
    return node, ONE


def _times(first: Node, second: Node) -> Node:
    if first == ONE:
        return second
    return first if second == ONE else apply("mul", first, second)


def _never_vanishes(below: Node, above: Node) -> bool:
    """The denominator is a constant or a product of variables none of which is 0 where the numerator is."""
    if is_constant(below):
        return True
    if any(isinstance(part, Apply) and part.op not in ("mul", "pow") for part in nodes_of(below)):
        return False
    return all(_constant_at_zero(above, name) for name in symbols_of(below))


def _constant_at_zero(node: Node, name: str) -> bool:
    """With `name` = 0 the node is a constant that is not 0."""
    found = set()
    for value in (2, -3, 7):
        point = {symbol: number(value + index) for index, symbol in enumerate(symbols_of(node))} | {name: number(0)}
        try:
            found.add(rational_value(node, {symbol: literal.value for symbol, literal in point.items()}))
        except NotRationalError:
            return False
    return len(found) == 1 and 0 not in found
