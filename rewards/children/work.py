"""What child processes do: factories that `ChildPool` names, each returning the function for one item.

Imports little: this runs in every child. The heavy modules come by `preload`, once, in the fork server.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayzero.rewards.children.fork_server import resolve

if TYPE_CHECKING:
    from rayzero.rewards.math.rules import Rules
    from rayzero.services.schema.config.math import Fallback

    MathItem = tuple[str, str, bool, Sequence[Fallback] | None]


def math_verifier(rules: Rules) -> Callable[[MathItem], tuple[bool, str, bool]]:
    """Judges `(completion, gold answer, prefilled, fallbacks)`; fallbacks of None are those of the rules.

    Returns whether they agree, why, and whether the gold answer is at fault.
    """
    from rayzero.rewards.math.verify import verify

    def grade(item: MathItem) -> tuple[bool, str, bool]:
        completion, gold, prefilled, fallbacks = item
        own = rules if fallbacks is None else replace(rules, fallbacks=tuple(fallbacks))
        verdict = verify(completion, gold, own, prefilled=prefilled)
        return verdict.correct, verdict.reason, verdict.is_bad_gold

    return grade


def checker_caller(names: Sequence[str]) -> Callable[[tuple[str, Any, Any, Any]], tuple[bool, str]]:
    """Calls the checkers of a recipe, `check(input, output, expected)`: whether one accepts the output, and why not.

    One that raises over the output but not over the expected one has met a wrong output.
    """
    functions = {name: resolve(name) for name in names}

    def check(item: tuple[str, Any, Any, Any]) -> tuple[bool, str]:
        name, given, output, expected = item
        try:
            return functions[name](given, output, expected) is True, f"refused by {name}"
        except Exception as error:
            functions[name](given, expected, expected)
            return False, f"{name} cannot read the output: {type(error).__name__}: {error}"

    return check


def custom_caller(spec: tuple[str, dict[str, Any]]) -> Callable[[dict[str, list[Any]]], list[float | None]]:
    """Calls `module:function` with lists by keyword, those that it asks for, and returns one number or None for each.

    `spec` is the function's name and keyword arguments that are the same in every call.
    """
    name, arguments = spec
    function = resolve(name)
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    wanted = {parameter.name for parameter in parameters}
    runner = asyncio.Runner()  # one loop a child: an async client that the module keeps open stays usable

    def call(columns: dict[str, list[Any]]) -> list[float | None]:
        given = {key: value for key, value in {**columns, **arguments}.items() if takes_all or key in wanted}
        scores = function(**given)
        if inspect.isawaitable(scores):
            scores = runner.run(_await(scores))
        return _checked(scores, len(columns["completions"]), name)

    return call


class BadReturn(Exception):
    """A reward function returned something else than it should: no single completion is to blame."""

    cause = "bad-return"


def _checked(scores: Any, number: int, name: str) -> list[float | None]:
    """One number or None for each completion. A dict would be its keys, and a pair `scores, info` two scores."""
    what = f"a {type(scores).__name__}"
    if isinstance(scores, Collection) and not isinstance(scores, str | bytes | Mapping | Set):
        if len(scores) == number and not any(isinstance(score, str | bytes) for score in scores):
            try:
                return [None if score is None else float(score) for score in scores]
            except (TypeError, ValueError):
                pass
        kinds = ", ".join(dict.fromkeys(type(score).__name__ for score in scores))
        what = f"{len(scores)} of the type {kinds}" if len(scores) else "none"
    raise BadReturn(f"{name} must return one number or None for each of the {number} completions; it returned {what}")


async def _await(result: Awaitable[Any]) -> Any:
    return await result
