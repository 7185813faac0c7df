"""The policy: when is an answer the gold answer? One function a kind of gold answer.

- A label (`x =`) may be omitted on either side; two labels that differ contradict each other.
- Units and percent: see quantities.py.
- Bare lists and sets have no order, tuples have; a bare list is no tuple; brackets of intervals count.
- A single value is never a list: what names several candidates is wrong.
"""

from __future__ import annotations

from dataclasses import replace

from rayzero.rewards.math.quantities import Quantities
from rayzero.rewards.math.reading.labels import is_plain_symbol, is_sought_expression, label_names, same_label
from rayzero.rewards.math.reading.text import same_words
from rayzero.rewards.math.rules import Rules
from rayzero.rewards.math.shapes import (
    as_matrix,
    as_text,
    assigned,
    brackets_agree,
    is_surely_a_set,
    is_vector,
    list_label,
    only_element,
)
from rayzero.rewards.math.values.answer import (
    Answer,
    Approximated,
    Equation,
    Inequality,
    Items,
    Junction,
    Matrix,
    Modular,
    Named,
    Ratio,
    Scalar,
    SetOperation,
    Words,
)
from rayzero.rewards.math.values.clock import Clock, Date, same_clock
from rayzero.rewards.math.values.equality import same_expression
from rayzero.rewards.math.values.equations import as_equation, same_equation, same_inequality
from rayzero.rewards.math.values.exact import NotRationalError, rational_value
from rayzero.rewards.math.values.realset import real_set, same_real_set
from rayzero.rewards.math.values.renaming import argument_of, with_argument
from rayzero.rewards.math.values.tree import Symbol, apply, number
from rayzero.rewards.math.values.units import NO_UNIT


class Comparison:
    """Compares answers under one setting."""

    def __init__(self, settings: Rules) -> None:
        self._quantities = Quantities(settings)
        self._lenient = settings.strictness == "lenient"

    def same(self, answer: Answer, gold: Answer) -> bool:
        """Is `answer` the gold answer? Raises TooLargeError."""
        if isinstance(gold, Approximated):
            return self.same(answer, gold.exact) or self.same(answer, gold.decimal)
        if isinstance(answer, Approximated):
            # The answer's own decimal has no tolerance: `≈ 3` would else be right for every gold answer near 3.
            return self.same(answer.exact, gold) or self.same(replace(answer.decimal, tolerance=None), gold)
        for chain, other in ((answer, gold), (gold, answer)):
            if isinstance(chain, Items) and chain.joiner == "=" and not isinstance(other, Items | Named):
                value = chain.items[0].value if isinstance(chain.items[0], Named) else chain.items[0]
                return self.same(value, gold) if chain is answer else self.same(answer, value)
        if isinstance(gold, Named) or isinstance(answer, Named):
            return self._named(answer, gold)
        if (isinstance(gold, Items) and self._is_assignment(gold)) or (
            isinstance(answer, Items) and self._is_assignment(answer)
        ):
            return self._assignments(answer, gold)
        return self._unnamed(answer, gold)

    def _unnamed(self, answer: Answer, gold: Answer) -> bool:
        as_sets = self._as_real_sets(answer, gold)
        if as_sets is not None:
            return as_sets
        # A plain R is a variable everywhere but beside the set of reals.
        if Words("ℝ") in (answer, gold) and Scalar(Symbol("R")) in (answer, gold):
            return True
        one, other = only_element(answer), only_element(gold)
        if (one is None) != (other is None):  # {3} and 3
            return self.same(one or answer, other or gold)
        if isinstance(gold, Scalar):
            return self._scalar_gold(answer, gold)
        if isinstance(gold, Items):
            return self._items(answer, gold)
        if isinstance(gold, Matrix):
            return self._matrix(answer, gold)
        if isinstance(gold, Equation):
            equation = as_equation(answer)
            return equation is not None and same_equation(equation, gold)
        if isinstance(gold, Inequality):
            return isinstance(answer, Inequality) and same_inequality(answer, gold)
        if isinstance(gold, Junction | SetOperation):
            return self._structure(answer, gold)
        if isinstance(gold, Ratio):
            return self._ratio(answer, gold)
        if isinstance(gold, Modular):
            return self._modular(answer, gold)
        if isinstance(gold, Clock):
            return self._clock(answer, gold)
        if isinstance(gold, Date):
            return answer == gold
        return isinstance(gold, Words) and same_words(as_text(answer), gold.text)

    # -- numbers

    def _scalar_gold(self, answer: Answer, gold: Scalar) -> bool:
        if isinstance(answer, Ratio) and answer.clock is None and len(answer.terms) == 2:
            return same_expression(apply("div", *answer.terms), gold.node)
        if isinstance(answer, Modular):
            return not answer.label and same_expression(answer.residue, gold.node)
        return isinstance(answer, Scalar) and self._quantities.same(answer, gold)

    # -- labels

    def _named(self, answer: Answer, gold: Answer) -> bool:
        if isinstance(gold, Named) and isinstance(answer, Named):
            return self._both_named(answer, gold)
        if isinstance(gold, Named):
            equation, own = as_equation(answer), as_equation(gold)
            if isinstance(answer, Equation) and equation and own:
                return same_equation(equation, own)
            if isinstance(answer, Inequality | Junction):
                sets = real_set(answer), real_set(gold)
                return sets[0] is not None and sets[1] is not None and same_real_set(sets[0], sets[1])
            if isinstance(answer, Items) and self._is_assignment(answer):
                return self._assignments(answer, gold)
            # x + y = 5 may be a line, of which 5 alone says nothing.
            return not is_sought_expression(gold.label) and self.same(answer, gold.value)
        assert isinstance(answer, Named)
        if isinstance(gold, Equation):
            equation = as_equation(answer)
            return equation is not None and same_equation(equation, gold)
        if isinstance(gold, Inequality | Junction):
            return self._as_real_sets(answer, gold) or False
        if isinstance(gold, Items) and self._is_assignment(gold):
            return self._assignments(answer, gold)
        if isinstance(gold, Items) and gold.brackets == "" and label_names(answer.label):
            values = answer.value.items if isinstance(answer.value, Items) else ()  # (x, y) = (1, 2) for 1, 2
            return self._in_any_order(Items("", values), gold)
        return self.same(answer.value, gold)

    def _both_named(self, answer: Named, gold: Named) -> bool:
        if (renamed := self._with_argument(answer, gold)) is not None:
            return self.same(renamed, gold.value)
        if not same_label(answer.label, gold.label) and is_plain_symbol(answer.label) and is_plain_symbol(gold.label):
            equations = as_equation(answer), as_equation(gold)
            return equations[0] is not None and equations[1] is not None and same_equation(equations[0], equations[1])
        names, gold_names = label_names(answer.label), label_names(gold.label)
        return names == gold_names and self.same(answer.value, gold.value)

    def _with_argument(self, answer: Named, gold: Named) -> Scalar | None:
        """The value of `f(t) = …` where the gold answer writes `f(x) = …`."""
        own, wanted = argument_of(answer.label), argument_of(gold.label)
        if own is None or wanted is None or own[0] != wanted[0] or own[1] == wanted[1]:
            return None
        if not isinstance(answer.value, Scalar):
            return None
        node = with_argument(answer.value.node, own[1], wanted[1])
        return None if node is None else replace(answer.value, node=node)

    def _is_assignment(self, items: Items) -> bool:
        """`x = 1, y = 2`, or `x_1 = 1, x_2 = 2`."""
        return (
            items.brackets in ("", "⦃⦄", "()", "[]")
            and len(items.items) > 1
            and all(isinstance(item, Named) for item in items.items)
        )

    def _assignments(self, answer: Answer, gold: Answer) -> bool:
        if any(isinstance(side, Items) and side.brackets in ("(]", "[)") for side in (answer, gold)):
            return False
        first, second = assigned(answer), assigned(gold)
        if first is None or second is None:
            return False
        labels = list_label(answer), list_label(gold)
        if labels[0] != labels[1] and None not in labels:
            return False
        if any(isinstance(side, dict) for side in (first, second)) and labels != (None, None):  # c, c for a, b
            return False
        if isinstance(first, dict) and isinstance(second, dict):
            return first.keys() == second.keys() and all(self.same(first[name], second[name]) for name in second)
        if isinstance(first, dict) and isinstance(second, Items):
            if second.brackets == "":  # a = 1, b = 2 for 2, 1: a bare list has no order
                return self._in_any_order(Items("", tuple(first.values())), second)
            return second.brackets == "()" and self._in_order(
                tuple(first[name] for name in sorted(first)), second.items
            )
        if isinstance(second, dict) and isinstance(first, Items):
            names = sorted(second) if first.brackets == "()" else list(second)
            return first.brackets in ("()", "") and self._in_order(first.items, tuple(second[name] for name in names))
        assert isinstance(first, Items) and isinstance(second, Items)
        return self._items(first, second)

    # -- structures

    def _as_real_sets(self, answer: Answer, gold: Answer) -> bool | None:
        """Decides where at least one side can only be a set of reals (or both are intervals); else None."""
        certain = (Inequality, Junction, SetOperation)
        if not any(isinstance(side, certain) or is_surely_a_set(side) for side in (answer, gold)):
            return None
        if isinstance(answer, Items) and answer.brackets == "" and answer.joiner != "or":
            return None
        sets = real_set(answer), real_set(gold)
        if sets[0] is None or sets[1] is None:
            return None
        return same_real_set(sets[0], sets[1])

    def _items(self, answer: Answer, gold: Items) -> bool:
        if isinstance(answer, Matrix):
            return self._matrix(answer, gold)
        if not isinstance(answer, Items):
            return gold.is_set and not gold.items and same_words(as_text(answer), "∅")
        if gold.brackets in ("", "⦃⦄"):
            if answer.brackets not in ("", "⦃⦄"):
                return self._lenient and gold.brackets == "" and self._in_order(answer.items, gold.items)
            return self._in_any_order(answer, gold)
        if answer.brackets == "" and self._lenient:
            return self._in_order(answer.items, gold.items)
        return brackets_agree(answer, gold) and self._in_order(answer.items, gold.items)

    def _in_order(self, answers: tuple[Answer, ...], golds: tuple[Answer, ...]) -> bool:
        return len(answers) == len(golds) and all(map(self.same, answers, golds))

    def _in_any_order(self, answer: Items, gold: Items) -> bool:
        """Each gold element once; in sets, repetitions do not count."""
        found, wanted = list(answer.items), list(gold.items)
        if answer.is_set or gold.is_set:
            found, wanted = self._distinct(found), self._distinct(wanted)
            if answer.brackets != gold.brackets and len(answer.items) != len(found) and not answer.is_set:
                return False
        if len(found) != len(wanted):
            return False
        for one in wanted:
            match = next((index for index, other in enumerate(found) if self._same_element(other, one)), None)
            if match is None:
                return False
            found.pop(match)
        return True

    def _same_element(self, answer: Answer, gold: Answer) -> bool:
        """In a set, {2} is not 2."""
        return isinstance(answer, Items) == isinstance(gold, Items) and self.same(answer, gold)

    def _distinct(self, items: list[Answer]) -> list[Answer]:
        kept: list[Answer] = []
        for item in items:
            if not any(self._same_element(item, other) for other in kept):
                kept.append(item)
        return kept

    def _matrix(self, answer: Answer, gold: Matrix | Items) -> bool:
        first, second = as_matrix(answer), as_matrix(gold)
        if first is None or second is None or first.kind != second.kind:
            return False
        if is_vector(answer) != is_vector(gold) and 1 in (len(second.rows), len(second.rows[0])):
            cells = [tuple(cell for row in matrix.rows for cell in row) for matrix in (first, second)]
            flat = all(1 in (len(matrix.rows), len(matrix.rows[0])) for matrix in (first, second))
            return flat and self._in_order(cells[0], cells[1])
        return len(first.rows) == len(second.rows) and all(map(self._in_order, first.rows, second.rows))

    def _structure(self, answer: Answer, gold: Junction | SetOperation) -> bool:
        """Unions and conditions whose ends are no real constants: part by part."""
        if isinstance(gold, Junction):
            if not isinstance(answer, Junction) or answer.kind != gold.kind:
                return False
            return self._in_any_order(Items("", answer.items), Items("", gold.items))
        if not isinstance(answer, SetOperation) or answer.op != gold.op:
            return False
        straight = self.same(answer.left, gold.left) and self.same(answer.right, gold.right)
        crossed = gold.op != "∖" and self.same(answer.left, gold.right) and self.same(answer.right, gold.left)
        return straight or crossed

    def _ratio(self, answer: Answer, gold: Ratio) -> bool:
        if isinstance(answer, Clock):
            return gold.clock is not None and same_clock(answer, gold.clock)
        if gold.clock is not None and isinstance(answer, Ratio) and answer.clock is not None:
            return answer.clock == gold.clock
        if isinstance(answer, Scalar) and len(gold.terms) == 2 and gold.clock is None and answer.unit == NO_UNIT:
            return same_expression(answer.node, apply("div", *gold.terms))
        if not isinstance(answer, Ratio) or len(answer.terms) != len(gold.terms):
            return False
        if any(same_expression(term, number(0)) for term in gold.terms):  # 142:00 is not 12:00
            return all(map(same_expression, answer.terms, gold.terms))
        return all(
            same_expression(apply("mul", term, gold.terms[0]), apply("mul", other, answer.terms[0]))
            for term, other in zip(answer.terms, gold.terms, strict=True)
        ) and not same_expression(answer.terms[0], number(0))

    def _modular(self, answer: Answer, gold: Modular) -> bool:
        if isinstance(answer, Scalar) and self._lenient:
            return same_expression(answer.node, gold.residue)
        if not isinstance(answer, Modular) or (answer.label and gold.label and answer.label != gold.label):
            return False
        if not same_expression(answer.modulus, gold.modulus):
            return False
        try:
            difference = rational_value(apply("add", answer.residue, apply("neg", gold.residue)))
            modulus = rational_value(gold.modulus)
        except NotRationalError:
            return same_expression(answer.residue, gold.residue)
        return modulus != 0 and (difference / modulus).denominator == 1

    def _clock(self, answer: Answer, gold: Clock) -> bool:
        if isinstance(answer, Ratio):
            if self._lenient and answer.clock is not None:
                return same_clock(gold, answer.clock)
            return answer.clock is not None and same_clock(answer.clock, gold)
        return isinstance(answer, Clock) and same_clock(answer, gold)
