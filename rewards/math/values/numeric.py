"""Value of a tree to many digits, with a bound on what rounding can have done to it. mpmath does the functions.

Roots are the real ones where there is a real one: the cube root of −8, and (−8)^(1/3), are −2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath

from rayzero.rewards.math.errors import TooLargeError
from rayzero.rewards.math.values.exact import NotRationalError, rational_value
from rayzero.rewards.math.values.tree import Apply, Constant, Node, Num, Symbol

_MAX_LOG10 = 20_000
"""Powers and exponentials beyond 10^±this are refused."""
_MAX_ANGLE_LOG10 = 30
_MAX_GAMMA = 20_000
_REAL_EPSILON = mpmath.mpf(10) ** -45


class UndefinedError(Exception):
    """No finite value: division by zero, the logarithm of 0, infinity."""


@dataclass(frozen=True, slots=True)
class Approximation:
    """A value and the largest magnitude met on the way to it: rounding errs by about magnitude · 10^−digits."""

    value: Any
    magnitude: Any

    @property
    def is_real(self) -> bool:
        """False where an imaginary part is more than rounding."""
        return not isinstance(self.value, mpmath.mpc) or bool(abs(self.value.imag) <= self.magnitude * _REAL_EPSILON)


def approximate(node: Node, digits: int, variables: Mapping[str, Fraction] | None = None) -> Approximation:
    """Evaluate to `digits` decimal digits (15 more are carried). Raises UndefinedError or TooLargeError."""
    with mpmath.workdps(digits + 15):
        try:
            return _BoundedEvaluation(variables or {}).value(node)
        except (ZeroDivisionError, mpmath.libmp.ComplexResult) as error:
            raise UndefinedError from error
        except (ValueError, OverflowError, mpmath.libmp.NoConvergence, TypeError) as error:
            raise UndefinedError from error


def agree(first: Approximation, second: Approximation, digits: int) -> bool:
    """Equal up to 10^−digits of the largest magnitude met. Both must have been evaluated to more digits."""
    with mpmath.workdps(digits + 15):
        scale = max(first.magnitude, second.magnitude)
        return bool(abs(first.value - second.value) <= scale * mpmath.mpf(10) ** -digits)


class _BoundedEvaluation:
    def __init__(self, variables: Mapping[str, Fraction]) -> None:
        self._variables = variables

    def value(self, node: Node) -> Approximation:
        if isinstance(node, Num):
            return _plain(_from_fraction(node.value))
        if isinstance(node, Symbol):
            return _plain(_from_fraction(self._variables[node.name]))
        if isinstance(node, Constant):
            if node.name == "inf":
                raise UndefinedError
            return _plain({"pi": +mpmath.pi, "e": +mpmath.e, "i": mpmath.mpc(0, 1)}[node.name])
        if node.op == "pow":
            return self._power(node)
        if node.op in ("fact", "binom", "perm", "gcd", "lcm"):
            return self._counted(node)
        return self._applied(node)

    def _applied(self, node: Apply) -> Approximation:
        arguments = [self.value(argument) for argument in node.args]
        values = [argument.value for argument in arguments]
        magnitudes = [argument.magnitude for argument in arguments]
        if node.op == "add":
            return Approximation(mpmath.fsum(values), mpmath.fsum(magnitudes))
        if node.op == "neg":
            return Approximation(-values[0], magnitudes[0])
        if node.op == "mul":
            return Approximation(values[0] * values[1], magnitudes[0] * magnitudes[1])
        if node.op == "div":
            # A divisor that is all rounding stands for 0: dividing by it would make any number of nothing.
            if abs(values[1]) <= magnitudes[1] * mpmath.mpf(10) ** (10 - mpmath.mp.dps):
                raise UndefinedError
            quotient = values[0] / values[1]
            return Approximation(quotient, magnitudes[0] * magnitudes[1] / abs(values[1]) ** 2)
        if node.op == "root" and len(node.args) == 2:
            return _root(arguments[0], node.args[1])
        function = _FUNCTIONS.get(node.op)
        if function is None:
            raise UndefinedError
        real = [_realised(argument) for argument in arguments]
        result = function(*real)
        return Approximation(result, max([abs(result), *magnitudes, mpmath.mpf(10) ** -30]))

    def _counted(self, node: Apply) -> Approximation:
        try:
            return _plain(_from_fraction(rational_value(node, self._variables)))
        except NotRationalError as error:
            values = [_realised(self.value(argument)) for argument in node.args]
            if node.op not in _CONTINUED or any(
                isinstance(value, mpmath.mpc) or abs(value) > _MAX_GAMMA for value in values
            ):
                raise UndefinedError from error
            return _plain(_CONTINUED[node.op](*values))

    def _power(self, node: Apply) -> Approximation:
        base, exponent = self.value(node.args[0]), self.value(node.args[1])
        try:
            rational = rational_value(node.args[1], self._variables)
        except (NotRationalError, TooLargeError):
            rational = None
        if abs(base.value) <= base.magnitude * mpmath.mpf(10) ** (10 - mpmath.mp.dps):
            if rational is None or rational <= 0:
                raise UndefinedError
            return Approximation(mpmath.mpf(0), base.magnitude)
        power = mpmath.re(exponent.value)
        # 9^9^9^9 would take all memory before any time limit is looked at.
        if abs(mpmath.log10(abs(base.value)) * abs(exponent.value)) > _MAX_LOG10:
            raise TooLargeError("a power too large")
        if rational is not None and rational.denominator == 1 and abs(rational) < 100_000:
            result = base.value ** int(rational)
        elif (
            rational is not None
            and base.is_real
            and mpmath.re(base.value) < 0
            and rational.denominator % 2
            and rational.denominator < 1_000
        ):
            result = (-mpmath.re(base.value)) ** power * (-1 if rational.numerator % 2 else 1)
        else:
            result = _realised(base) ** _realised(exponent)
        growth = (base.magnitude / abs(base.value)) * (
            1 + abs(exponent.magnitude) * (1 + abs(mpmath.log(abs(base.value))))
        )
        return Approximation(result, abs(result) * max(growth, 1))


def _plain(value: Any) -> Approximation:
    return Approximation(value, abs(value))


def _from_fraction(value: Fraction) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator


def _realised(argument: Approximation) -> Any:
    """The value without an imaginary part that is rounding only."""
    return mpmath.re(argument.value) if argument.is_real else argument.value


def _root(radicand: Approximation, index: Node) -> Approximation:
    degree = rational_value(index)
    if degree.denominator != 1 or not 1 <= degree <= 1_000:
        raise UndefinedError
    value, n = _realised(radicand), int(degree)
    if abs(value) <= radicand.magnitude * mpmath.mpf(10) ** (10 - mpmath.mp.dps):
        return Approximation(mpmath.mpf(0), radicand.magnitude ** (mpmath.mpf(1) / n))
    real_below_zero = n % 2 and radicand.is_real and value < 0
    result = -mpmath.root(-value, n) if real_below_zero else mpmath.root(value, n)
    return Approximation(result, abs(result) * max(1, radicand.magnitude / abs(value)))


def _bounded(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Angles beyond 10^30 are refused: their value is noise and their reduction expensive."""

    def of(angle: Any) -> Any:
        if abs(angle) > mpmath.mpf(10) ** _MAX_ANGLE_LOG10:
            raise TooLargeError("an angle too large")
        return function(angle)

    return of


def _exponential(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of(x: Any) -> Any:
        if abs(x) > 2 * _MAX_LOG10:
            raise TooLargeError("an exponential too large")
        return function(x)

    return of


def _log(x: Any, base: Any = 10) -> Any:
    if x == 0 or base in (0, 1):
        raise UndefinedError
    return mpmath.log(x) / mpmath.log(base)


def _whole(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Floor and ceiling; at an integer, rounding would decide, so its neighbourhood counts as the integer."""

    def of(x: Any) -> Any:
        nearest = mpmath.nint(x)
        return nearest if abs(x - nearest) < mpmath.mpf(10) ** (20 - mpmath.mp.dps) else function(x)

    return of


_CONTINUED: dict[str, Callable[..., Any]] = {
    "fact": lambda x: mpmath.gamma(x + 1),
    "binom": lambda n, k: mpmath.gamma(n + 1) / (mpmath.gamma(k + 1) * mpmath.gamma(n - k + 1)),
    "perm": lambda n, k: mpmath.gamma(n + 1) / mpmath.gamma(n - k + 1),
}
"""Of variables: continued by Γ, so that identities such as n! = n · (n−1)! hold at every point."""
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": _bounded(mpmath.sin),
    "cos": _bounded(mpmath.cos),
    "tan": _bounded(mpmath.tan),
    "cot": _bounded(mpmath.cot),
    "sec": _bounded(mpmath.sec),
    "csc": _bounded(mpmath.csc),
    "asin": _bounded(mpmath.asin),
    "acos": _bounded(mpmath.acos),
    "atan": _bounded(mpmath.atan),
    "acot": _bounded(mpmath.acot),
    "asec": _bounded(mpmath.asec),
    "acsc": _bounded(mpmath.acsc),
    "sinh": _exponential(mpmath.sinh),
    "cosh": _exponential(mpmath.cosh),
    "tanh": _exponential(mpmath.tanh),
    "exp": _exponential(mpmath.exp),
    "ln": lambda x: _log(x, mpmath.e),
    "log": _log,
    "abs": abs,
    "floor": _whole(mpmath.floor),
    "ceil": _whole(mpmath.ceil),
    "max": lambda *values: max(values),
    "min": lambda *values: min(values),
    "Re": mpmath.re,
    "Im": mpmath.im,
}
