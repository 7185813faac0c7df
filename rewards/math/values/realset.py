"""Sets of real numbers as unions of intervals, so that `x > 3`, `(3, ∞)` and `{x | 3 < x}` are one thing.

A set is a sorted list of cuts: (value, side), where side −1 cuts just below the value and +1 just above it. Cuts at
even places open a stretch, those at odd places close it. Values are 60-digit numbers; ends closer than 10^−45 are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath

from rayzero.rewards.math.values.answer import Answer, Inequality, Items, Junction, Named, Scalar, SetOperation, Words
from rayzero.rewards.math.values.equality import has_infinity, is_constant, same_expression
from rayzero.rewards.math.values.nearness import real_value
from rayzero.rewards.math.values.tree import Apply, Constant, Node, Symbol, apply, number, substituted, symbols_of

_EPSILON = mpmath.mpf(10) ** -45
_MIRRORED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠"}
_BRACKET_SIDES = {"(": 1, "[": -1, ")": -1, "]": 1}

Cut = tuple[Any, int]


@dataclass(frozen=True, slots=True)
class RealSet:
    """Cuts in order, and the variable that the text named, if it named one."""

    cuts: tuple[Cut, ...]
    variable: str | None = None


def real_set(answer: Answer) -> RealSet | None:
    """Read an answer as a set of reals; None where it is none, or has ends that are no real constants."""
    if isinstance(answer, Items):
        return _from_items(answer)
    if isinstance(answer, Inequality):
        return _from_chain(answer)
    if isinstance(answer, Named):
        inner = _point(answer.value) if isinstance(answer.value, Scalar) else real_set(answer.value)
        return None if inner is None else RealSet(inner.cuts, answer.label.strip())
    if isinstance(answer, Junction):
        return _joined([real_set(item) for item in answer.items], answer.kind == "or")
    if isinstance(answer, SetOperation):
        left, right = real_set(answer.left), real_set(answer.right)
        if left is None or right is None:
            return None
        member = {"∪": lambda a, b: a or b, "∩": lambda a, b: a and b, "∖": lambda a, b: a and not b}[answer.op]
        return _combined(left, right, member)
    if isinstance(answer, Words) and answer.text == "ℝ":
        return RealSet(((-mpmath.inf, 1), (mpmath.inf, -1)))
    return None


def same_real_set(answer: RealSet, gold: RealSet) -> bool:
    """Equal as sets; where both name their variable, it is the same one."""
    if answer.variable and gold.variable and answer.variable != gold.variable:
        return False
    return len(answer.cuts) == len(gold.cuts) and all(map(_same_cut, answer.cuts, gold.cuts))


def _same_cut(answer: Cut, gold: Cut) -> bool:
    """∞ is in no set of reals: an answer that closes it is wrong, a gold answer that does is taken for a slip."""
    if not _same_value(answer[0], gold[0]):
        return False
    closed_gold = mpmath.isinf(gold[0]) and gold[1] == (1 if gold[0] > 0 else -1)
    return bool(answer[1] == gold[1] or closed_gold)


def _from_items(items: Items) -> RealSet | None:
    if items.is_set:
        points = [_point(item) for item in items.items]
        return _joined(points, True) if points else RealSet(())
    if items.brackets == "" and items.joiner == "or":
        return _joined([real_set(item) for item in items.items], True)
    if len(items.items) != 2 or items.brackets[:1] not in ("(", "[") or items.brackets[1:] not in (")", "]"):
        return None
    ends = [_end(item) for item in items.items]
    if ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
        return None
    low, high = ends
    return RealSet(((low, _BRACKET_SIDES[items.brackets[0]]), (high, _BRACKET_SIDES[items.brackets[1]])))


def _point(item: Answer) -> RealSet | None:
    value = _end(item)
    return None if value is None or abs(value) == mpmath.inf else RealSet(((value, -1), (value, 1)))


def _end(item: Answer) -> Any | None:
    if not isinstance(item, Scalar):
        return None
    node = item.node
    if isinstance(node, Constant) and node.name == "inf":
        return mpmath.inf
    if isinstance(node, Apply) and node.op == "neg" and node.args[0] == Constant("inf"):
        return -mpmath.inf
    return None if has_infinity(node) else real_value(node)


def _from_chain(chain: Inequality) -> RealSet | None:
    names = symbols_of(*chain.sides)
    if len(names) != 1:
        return None
    found = [
        _from_pair(left, op, right, names[0])
        for left, op, right in zip(chain.sides, chain.ops, chain.sides[1:], strict=False)
    ]
    joined = _joined(found, False)
    return None if joined is None else RealSet(joined.cuts, names[0])


def _from_pair(left: Node, op: str, right: Node, name: str) -> RealSet | None:
    """Solve one linear inequality, |linear| against a constant included."""
    if has_infinity(left) or has_infinity(right):
        bare = [Constant("inf"), apply("neg", Constant("inf"))]
        return RealSet(((-mpmath.inf, 1), (mpmath.inf, -1))) if left in bare or right in bare else None
    for one, other, direction in ((left, right, op), (right, left, _MIRRORED[op])):
        if isinstance(one, Apply) and one.op == "abs" and is_constant(other):
            return _absolute(one.args[0], direction, other, name)
    return _linear(apply("add", left, apply("neg", right)), op, name)


def _absolute(inner: Node, op: str, bound: Node, name: str) -> RealSet | None:
    value = real_value(bound)
    if value is None or value <= 0 or op == "≠":
        return None
    below = _linear(apply("add", inner, apply("neg", bound)), op, name)
    above = _linear(apply("add", inner, bound), _MIRRORED[op], name)
    return _joined([below, above], op in (">", "≥"))


def _linear(node: Node, op: str, name: str) -> RealSet | None:
    """Solve `node op 0` where node is a·x + b."""
    at = [substituted(node, {name: number(value)}) for value in (0, 1)]
    slope = apply("add", at[1], apply("neg", at[0]))
    line = apply("add", apply("mul", slope, Symbol(name)), at[0])
    slope_value, offset = real_value(slope), real_value(at[0])
    if slope_value is None or offset is None or abs(slope_value) < _EPSILON or not same_expression(node, line):
        return None
    with mpmath.workdps(60):
        end = -offset / slope_value
    if slope_value < 0:
        op = _MIRRORED[op]
    low, high = (-mpmath.inf, 1), (mpmath.inf, -1)
    cuts: dict[str, tuple[Cut, ...]] = {
        "<": (low, (end, -1)), "≤": (low, (end, 1)), ">": ((end, 1), high), "≥": ((end, -1), high),
        "≠": (low, (end, -1), (end, 1), high),
    }  # fmt: skip
    return RealSet(cuts[op])


def _joined(sets: list[RealSet | None], union: bool) -> RealSet | None:
    result: RealSet | None = None
    for one in sets:
        if one is None:
            return None
        if result is None:
            result = one
        elif result.variable and one.variable and result.variable != one.variable:
            return None
        else:
            result = _combined(result, one, (lambda a, b: a or b) if union else (lambda a, b: a and b))
    return result


def _combined(first: RealSet, second: RealSet, member: Callable[[bool, bool], bool]) -> RealSet:
    """Sweep over all cuts of both."""
    snapped = [_snapped(cut, first.cuts) for cut in second.cuts]
    cuts: list[Cut] = []
    inside = False
    for cut in sorted({*first.cuts, *snapped}):
        now = member(_contains(first.cuts, cut), _contains(tuple(snapped), cut))
        if now != inside:
            cuts.append(cut)
            inside = now
    return RealSet(tuple(cuts), first.variable or second.variable)


def _snapped(cut: Cut, to: tuple[Cut, ...]) -> Cut:
    """The cut with the other set's value, where they differ by rounding only."""
    for value, _ in to:
        if _same_value(value, cut[0]):
            return (value, cut[1])
    return cut


def _contains(cuts: tuple[Cut, ...], cut: Cut) -> bool:
    """Is what lies just after `cut` in the set?"""
    return sum(one <= cut for one in cuts) % 2 == 1


def _same_value(first: Any, second: Any) -> bool:
    if mpmath.isinf(first) or mpmath.isinf(second):
        return bool(first == second)
    with mpmath.workdps(60):
        return bool(abs(first - second) <= _EPSILON * max(1, abs(first), abs(second)))
