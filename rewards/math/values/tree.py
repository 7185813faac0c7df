"""What a scalar expression is read into: a tree of four kinds of node. Nothing here evaluates anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Num:
    """A rational literal, exact: `0.1` is 1/10."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Constant:
    """`pi`, `e`, `i` or `inf`."""

    name: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, with its subscript and primes: `x`, `a_1`, `theta`, `y'`, `f(x)`."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation: add, neg, mul, div, pow, root(x, n), fact, binom, perm, abs, floor, ceil, log(x, base), sin, …"""

    op: str
    args: tuple[Node, ...]


Node = Num | Constant | Symbol | Apply

ONE = Num(Fraction(1))
PI = Constant("pi")


def apply(op: str, *args: Node) -> Node:
    """`Apply` with a shorter spelling."""
    return Apply(op, args)


def number(value: int | Fraction) -> Num:
    """A literal."""
    return Num(Fraction(value))


def nodes_of(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        if isinstance(top, Apply):
            stack.extend(top.args)


def symbols_of(*roots: Node) -> list[str]:
    """Names of the variables, sorted."""
    return sorted({node.name for root in roots for node in nodes_of(root) if isinstance(node, Symbol)})


def is_integer(node: Node) -> bool:
    """True for an integer literal."""
    return isinstance(node, Num) and node.value.denominator == 1


def substituted(node: Node, values: Mapping[str, Node]) -> Node:
    """The tree with these variables replaced."""
    if isinstance(node, Symbol):
        return values.get(node.name, node)
    if isinstance(node, Apply):
        return Apply(node.op, tuple(substituted(argument, values) for argument in node.args))
    return node
