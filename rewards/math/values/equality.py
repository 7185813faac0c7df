"""Are two scalar expressions equal by exact value, and two equations the same up to a factor?

- Both rational: exact fractions decide.
- Constants with roots, π, logarithms, …: agreement to 60 digits, and then to 400, of the largest magnitude met.
- With variables: agreement at fixed points, of both signs, small and large; exactly where both are rational there.
  A point at which only one of the two has a real value decides against equality: ln x² is not 2 ln x.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from rayzero.rewards.math.errors import TooLargeError
from rayzero.rewards.math.values.exact import NotRationalError, rational_value
from rayzero.rewards.math.values.numeric import Approximation, UndefinedError, agree, approximate
from rayzero.rewards.math.values.tree import Apply, Constant, Node, Symbol, apply, nodes_of, number, symbols_of

# 60 digits tell nearly all pairs apart that differ; those that agree so far are computed once more, with 400.
_COARSE_DIGITS = 60
_FINE_DIGITS = 400
_MAX_SYMBOLS = 12
# Fewer real points than these prove nothing: two functions may meet in two.
_MIN_POINTS = 3
# Of what is too large to be computed at some points.
_MIN_POINTS_OF_LARGE = 6
_SCALES = (
    (Fraction(3, 2), 1), (Fraction(5, 7), 1), (Fraction(1, 9), 1), (Fraction(37, 3), 1), (Fraction(2011, 3), 1),
    (Fraction(7, 4), -1), (Fraction(3, 11), -1), (Fraction(61, 5), -1), (Fraction(3001, 7), -1), (Fraction(9, 5), 0),
    (Fraction(23, 3), 0), (Fraction(4, 13), 0),
)  # fmt: skip
"""Magnitude of the points and their signs: all positive, all negative, or alternating (0)."""


_CONSTANTS_OF_INTEGRATION = frozenset(map(Symbol, "CcKk"))
INTEGRATION_VARIABLES = frozenset([*"xtuyzsrv", "theta"])
"""Beside one of these a letter such as C may be a constant of integration."""


def same_expression(first: Node, second: Node) -> bool:
    """Equal by value, at every point where either is defined. Raises TooLargeError."""
    if first == second:
        return True
    names = symbols_of(first, second)
    if not names:
        return _same_constant(first, second)
    if len(names) > _MAX_SYMBOLS or symbols_of(first) != symbols_of(second):
        return _same_after_cancelling(first, second, names) if len(names) <= _MAX_SYMBOLS else False
    return _same_function(first, second, names)


def same_antiderivative(first: Node, second: Node) -> bool:
    """Equal functions of one variable plus a constant of integration, whatever that is called: `+ C` and `+ c`."""
    if "C" not in symbols_of(first, second):
        return False
    functions = [_without_constant(node) for node in (first, second)]
    return functions[0] is not None and functions[1] is not None and same_expression(functions[0], functions[1])


def _without_constant(node: Node) -> Node | None:
    if not isinstance(node, Apply) or node.op != "add":
        return None
    rest = tuple(term for term in node.args if term not in _CONSTANTS_OF_INTEGRATION)
    names = symbols_of(*rest)
    if len(rest) != len(node.args) - 1 or len(names) != 1 or names[0] not in INTEGRATION_VARIABLES:
        return None
    return apply("add", *rest, number(0))


def proportional(first: Node, second: Node) -> Fraction | float | None:
    """The constant c ≠ 0 with first = c · second at all points, as a number whose sign can be trusted; else None."""
    names = symbols_of(first)
    if not names or names != symbols_of(second) or len(names) > _MAX_SYMBOLS:
        return None
    for point in _points(names):
        # Next to 0 a quotient is rounding alone, and its sign could turn an inequality.
        try:
            at_first, at_second = (approximate(node, _COARSE_DIGITS, point) for node in (first, second))
        except UndefinedError:
            continue
        if not (at_first.is_real and at_second.is_real) or abs(at_first.value) < 1e-30 or abs(at_second.value) < 1e-30:
            continue
        factor = _as_node(at_first, at_second)
        return (
            float(factor)
            if _same_function(first, apply("mul", number(factor), second), names, _COARSE_DIGITS // 2)
            else None
        )
    return None


def is_constant(node: Node) -> bool:
    """No variable in it."""
    return not symbols_of(node)


def has_infinity(node: Node) -> bool:
    """∞ occurs in it."""
    return any(isinstance(part, Constant) and part.name == "inf" for part in nodes_of(node))


def _same_constant(first: Node, second: Node) -> bool:
    if has_infinity(first) or has_infinity(second):
        return _sign_of_infinity(first) == _sign_of_infinity(second) != 0
    exact = [_exact(first), _exact(second)]
    if exact[0] is not None and exact[1] is not None:
        return exact[0] == exact[1]
    for digits in (_COARSE_DIGITS, _FINE_DIGITS):
        try:
            if not agree(approximate(first, digits, {}), approximate(second, digits, {}), digits - 10):
                return False
        except UndefinedError:
            return False
    return True


def _sign_of_infinity(node: Node) -> int:
    if isinstance(node, Constant) and node.name == "inf":
        return 1
    if isinstance(node, Apply) and node.op == "neg":
        return -_sign_of_infinity(node.args[0])
    return 0


def _exact(node: Node, point: dict[str, Fraction] | None = None) -> Fraction | None:
    try:
        return rational_value(node, point)
    except NotRationalError:
        return None


def _same_after_cancelling(first: Node, second: Node, names: list[str]) -> bool:
    """`x − x + 3` has a variable that does not matter."""
    return _same_function(first, second, names)


def _same_function(first: Node, second: Node, names: list[str], digits: int = _COARSE_DIGITS - 10) -> bool:
    outcomes = []
    too_large: TooLargeError | None = None
    for point in _points(names):
        try:
            outcome = _same_at(first, second, point, digits)
        except TooLargeError as error:  # e^{kt} at the larger points; the others tell enough
            too_large = error
            continue
        if outcome is False:
            return False
        outcomes.append(outcome)
    if too_large is not None and max(outcomes.count("real"), outcomes.count("complex")) < _MIN_POINTS_OF_LARGE:
        raise too_large
    if outcomes.count("real") >= _MIN_POINTS:
        return True
    return outcomes.count("complex") >= _MIN_POINTS and not {"real", "other complex"}.intersection(map(str, outcomes))


def _same_at(first: Node, second: Node, point: dict[str, Fraction], digits: int) -> str | bool | None:
    """False: they differ. "real" or "complex": they agree. None: neither is defined here.

    "other complex": neither is real and they differ, which counts only where no point is real: the fourth root of x³.
    """
    exact = [_exact(first, point), _exact(second, point)]
    if exact[0] is not None and exact[1] is not None:
        return "real" if exact[0] == exact[1] or _close(exact[0], exact[1], digits) else False
    values: list[Approximation | None] = []
    for node in (first, second):
        try:
            values.append(approximate(node, digits + 10, point))
        except UndefinedError:
            values.append(None)
    one, other = values
    if one is None or other is None:
        return None if one is other else False
    if one.is_real != other.is_real:
        return False
    if not agree(one, other, digits):
        return False if one.is_real else "other complex"
    return "real" if one.is_real else "complex"


def _close(first: Fraction, second: Fraction, digits: int) -> bool:
    """Only for a factor that was itself rounded (see `proportional`)."""
    return digits < _COARSE_DIGITS - 10 and abs(first - second) <= max(abs(first), abs(second)) / Fraction(10) ** digits


def _points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    for round_number, (scale, sign) in enumerate(_SCALES):
        point = {}
        for index, name in enumerate(names):
            spread = 1 + Fraction((index * 7 + round_number * 3) % 11, 17) + Fraction(index, 5)
            direction = sign or (1 if (index + round_number) % 2 else -1)
            point[name] = scale * spread * direction
        yield point


def _as_node(first: Approximation, second: Approximation) -> Fraction:
    import mpmath

    with mpmath.workdps(_COARSE_DIGITS + 10):
        ratio = mpmath.re(first.value) / mpmath.re(second.value)
        scale = mpmath.mpf(10) ** 50
        if abs(ratio) > 1e12 or abs(ratio) < 1e-12:
            raise TooLargeError("coefficients too far apart")
        return Fraction(int(mpmath.nint(ratio * scale)), 10**50)
