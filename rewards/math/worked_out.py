"""Is an answer worked out, or is there still something to calculate in it?

A box that repeats the question, `482*391`, has the gold answer's value. Where working it out is the task, a policy soon
learns to write such boxes: the setting `worked_out` refuses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction

from rayzero.rewards.math.values.answer import Answer, Named
from rayzero.rewards.math.values.tree import Apply, Constant, Node, Num, Symbol, is_integer

_FRACTION = "fraction"


def is_worked_out(answer: Answer, gold: Answer) -> bool:
    """Whether nothing is left to calculate in `answer`, which equals `gold`.

    Where `gold` is made of written numbers, `answer` must be: whole numbers, decimals, powers of ten (3·10^5), and
    fractions and mixed numbers where `gold` is not whole. Any other gold answer (2√3, x + 1) has many forms: each is.
    """
    wanted = set(_parts(gold))
    if wanted - {"whole", "decimal", _FRACTION}:
        return True
    return set(_parts(answer)) <= ({"whole", "decimal"} if wanted <= {"whole"} else {"whole", "decimal", _FRACTION})


def _parts(value: object) -> Iterator[str]:
    """What an answer is made of: the kinds of its written numbers, its operations, its names."""
    if isinstance(value, Num | Constant | Symbol | Apply):
        yield from _parts_of_node(value)
    elif isinstance(value, Named):
        yield from _parts(value.value)
    elif isinstance(value, tuple):
        for part in value:
            yield from _parts(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _parts(getattr(value, field.name))


def _parts_of_node(node: Node) -> Iterator[str]:
    match node:
        case Num():
            yield "whole" if is_integer(node) else "decimal"
        case Apply("neg", (inner,)):
            yield from _parts_of_node(inner)
        case Apply("pow", (Num(Fraction(numerator=10, denominator=1)), exponent)) if _is_whole(exponent):
            yield "whole"
        case Apply("mul", (Num() as factor, Apply("pow", (Num(Fraction(numerator=10, denominator=1)), exponent)))) if (
            _is_whole(exponent)
        ):
            yield from _parts_of_node(factor)
        case Apply("div", (over, under)) if _is_whole(over) and _is_whole(under):
            yield _FRACTION
        case Apply("add", (Num(), Apply("div", (Num(), Num())))):
            yield _FRACTION
        case Apply(op, arguments):
            yield op
            for argument in arguments:
                yield from _parts_of_node(argument)
        case Constant() | Symbol():
            yield "name"


def _is_whole(node: Node) -> bool:
    return is_integer(node.args[0] if isinstance(node, Apply) and node.op == "neg" else node)
