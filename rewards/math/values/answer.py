"""The kinds of answer that a text can be read as. read.py makes them, compare.py compares them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from rayzero.rewards.math.values.clock import Clock, Date
from rayzero.rewards.math.values.tree import Node
from rayzero.rewards.math.values.units import NO_UNIT, Unit


@dataclass(frozen=True, slots=True)
class Scalar:
    """One expression, with its unit."""

    node: Node
    unit: Unit = NO_UNIT
    tolerance: Fraction | None = None
    """How far the truth may lie, where the text marks its number as approximate."""
    last_place: Fraction | None = None
    """Value of the last digit of a decimal."""
    goes_on: bool = False
    """More digits follow than the text tells: `0.05…`, but not `0.333…`."""


@dataclass(frozen=True, slots=True)
class Words:
    """Anything that is not mathematics."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """Several answers. `brackets` is "" for a bare list, else both brackets: `()`, `[)`, `⦃⦄`, `⟨⟩`."""

    brackets: str
    items: tuple[Answer, ...]
    joiner: str = ","
    """`or` where a bare list is joined by it; `=` where it is `x = y = 2`."""

    @property
    def is_set(self) -> bool:
        """Written with set braces."""
        return self.brackets == "⦃⦄"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of answers; `kind` is the LaTeX environment where that matters (`v`: a determinant, `cases`), else ""."""

    rows: tuple[tuple[Answer, ...], ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """`x = 3`, `f(x) = …`, `x ∈ S`, `Area = 5`: a value with a label that may be omitted."""

    label: str
    value: Answer
    label_node: Node | None
    """The label as an expression, where it is one."""


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation whose left side is no label."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Inequality:
    """A chain: `sides[0] ops[0] sides[1] ops[1] …` with < > ≤ ≥ ≠."""

    sides: tuple[Node, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Junction:
    """Conditions joined by `and` or `or`."""

    kind: str
    items: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class SetOperation:
    """∪, ∩ or ∖ of two sets."""

    op: str
    left: Answer
    right: Answer


@dataclass(frozen=True, slots=True)
class Ratio:
    """`3:4`, `1:2:3`."""

    terms: tuple[Node, ...]
    clock: Clock | None = None
    """The time that the same text would be."""


@dataclass(frozen=True, slots=True)
class Modular:
    """`3 (mod 7)`, `x ≡ 3 (mod 7)`."""

    residue: Node
    modulus: Node
    label: str = ""


@dataclass(frozen=True, slots=True)
class Approximated:
    """`√2 ≈ 1.414`: an exact value and its decimal, which agree."""

    exact: Answer
    decimal: Scalar


Answer = (
    Scalar | Words | Items | Matrix | Named | Equation | Inequality | Junction | SetOperation | Ratio | Modular
    | Approximated | Clock | Date
)  # fmt: skip


def flattened(items: Items) -> Items:
    """A bare list whose elements are bare lists (from ±) becomes one list."""
    return replace(items, items=tuple(_flat(items))) if items.brackets in ("", "⦃⦄") else items


def _flat(items: Items) -> Iterator[Answer]:
    for item in items.items:
        if isinstance(item, Items) and item.brackets == "":
            yield from _flat(item)
        else:
            yield item
