r"""Names that a writer is free to choose: of an argument, an integer parameter, a constant of integration.

- `f(t) = 3t` is `f(x) = 3x`, and `a_k = 2k` is `a_n = 2n`.
- `π/4 + nπ` is `π/4 + kπ`: one letter of k, l, m, n that multiplies multiples of π (of degrees) only.
- `A e^x + B` is `C_1 e^x + C_2`: constants that occur once each beside a variable, one side's being called C, c or K.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import permutations

import mpmath

from rayzero.rewards.math.values.equality import INTEGRATION_VARIABLES, is_constant, same_expression
from rayzero.rewards.math.values.nearness import real_value
from rayzero.rewards.math.values.tree import PI, Node, Symbol, apply, nodes_of, number, substituted, symbols_of

_OF_ARGUMENT = re.compile(
    r"^(?P<function>[A-Za-z]'*|\\[a-z]+) *(?:\( *(?P<argument>[a-z]) *\)|_ *\{? *(?P<index>[a-z]) *\}?)$"
)
_PARAMETERS = frozenset("klmn")
_CONSTANT = re.compile(r"^(?:[cCKABD]|[cCkKAB]_\d)$")
_USUAL_CONSTANT = re.compile(r"^(?:[cCK]|[cCkK]_\d)$")
_NUMBERED = re.compile(r"^[cCkK]_\d$")
_MAX_CONSTANTS = 4
_MAX_STEP = 1_000


def argument_of(label: str) -> tuple[str, str] | None:
    """Function and argument of `f(x)`, sequence and index of `a_n`; None for another label."""
    match = _OF_ARGUMENT.match(label.strip())
    if match is None:
        return None
    kind = "()" if match["argument"] else "_"
    return match["function"].strip() + kind, match["argument"] or match["index"]


def with_argument(node: Node, own: str, wanted: str) -> Node | None:
    """The expression with its argument called `wanted`; None where that letter means something else in it."""
    return None if wanted in symbols_of(node) else substituted(node, {own: Symbol(wanted)})


def renamings(node: Node, gold: Node, *, in_degrees: bool = False) -> Iterator[Node]:
    """The expression with its free names called as in the gold answer, in every way that makes sense."""
    own, wanted = (_parameter(one, in_degrees) for one in (node, gold))
    if own and wanted and own != wanted:
        yield substituted(node, {own: Symbol(wanted)})
    constants, gold_constants = _constants(node), _constants(gold)
    if constants and _may_be_renamed(constants, gold_constants):
        for order in permutations(gold_constants):
            yield substituted(node, dict(zip(constants, map(Symbol, order), strict=True)))


def _parameter(node: Node, in_degrees: bool) -> str | None:
    """The only symbol, where the expression is a constant plus it times a rational multiple of π (or of degrees)."""
    names = symbols_of(node)
    if len(names) != 1 or names[0] not in _PARAMETERS:
        return None
    start, after = (substituted(node, {names[0]: number(value)}) for value in (0, 1))
    slope = apply("add", after, apply("neg", start))
    line = apply("add", apply("mul", slope, Symbol(names[0])), start)
    step = slope if in_degrees else apply("div", slope, PI)
    if not is_constant(step) or not (in_degrees or PI in nodes_of(slope)) or not same_expression(node, line):
        return None
    return names[0] if _is_rational(step) else None


def _is_rational(node: Node) -> bool:
    """Its value is a fraction with a denominator that people write, and not 0."""
    value = real_value(node)
    if value is None or abs(value) > _MAX_STEP:
        return False
    with mpmath.workdps(60):
        twelfths = 12 * value
        return bool(abs(twelfths) > 0.5 and abs(twelfths - mpmath.nint(twelfths)) < mpmath.mpf(10) ** -40)


def _constants(node: Node) -> list[str]:
    """Names that may be free constants, each occurring once beside a variable."""
    counts = Counter(part.name for part in nodes_of(node) if isinstance(part, Symbol))
    found = sorted(name for name in counts if _CONSTANT.match(name))
    others = set(counts) - set(found)
    if len(found) > _MAX_CONSTANTS or not others & INTEGRATION_VARIABLES or any(counts[name] > 1 for name in found):
        return []
    return found


def _may_be_renamed(own: list[str], wanted: list[str]) -> bool:
    if len(own) != len(wanted):
        return False
    if own == wanted:
        return len(own) > 1 and all(map(_NUMBERED.match, own))
    return any(all(map(_USUAL_CONSTANT.match, names)) for names in (own, wanted))
