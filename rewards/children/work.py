"""What child processes do: factories that `ChildPool` names, each returning the function for one item.

Imports little: this runs in every child. The heavy modules come by `preload`, once, in the fork server.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rayzero.rewards.children.fork_server import resolve

if TYPE_CHECKING:
    from rayzero.rewards.math.rules import Rules
    from rayzero.services.schema.config.math import Fallback

    MathItem = tuple[str, str, bool, Sequence[Fallback] | None]

TRAINER_STEP = "rayzero_trainer_step"
"""The column that becomes `trainer_state`."""
MAX_EXTRA_CHARS = 2_000


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


def custom_caller(spec: tuple[str, dict[str, Any]]) -> Callable[[dict[str, list[Any]]], Any]:
    """Calls `module:function` with lists by keyword, those that it asks for, and returns one number or None for each;
    where the function logged something, `{"scores", "metrics", "extra"}`.

    `spec` is the function's name and keyword arguments that are the same in every call.
    """
    name, arguments = spec
    function = resolve(name)
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    wanted = {parameter.name for parameter in parameters}
    runner = asyncio.Runner()  # one loop a child: an async client that the module keeps open stays usable

    def call(columns: dict[str, list[Any]]) -> Any:
        number = len(columns["completions"])
        log = RewardLog(number, name)
        own = {
            "log_metric": log.metric,
            "log_extra": log.extra,
            "trainer_state": TrainerState(columns.pop(TRAINER_STEP, [0])[0]),
        }
        given = {key: value for key, value in {**own, **columns, **arguments}.items() if takes_all or key in wanted}
        scores = function(**given)
        if inspect.isawaitable(scores):
            scores = runner.run(_await(scores))
        checked = _checked(scores, number, name)
        return {"scores": checked, "metrics": log.metrics, "extra": log.columns} if log else checked

    return call


@dataclass(frozen=True, slots=True)
class TrainerState:
    """What a reward function may know of the training, by TRL's name for it."""

    global_step: int
    """Updates that the policy had seen which wrote these completions."""


class RewardLog:
    """What a reward function says besides its scores, in one call: TRL's `log_metric` and `log_extra`."""

    def __init__(self, number: int, name: str) -> None:
        """`number`: completions of the call."""
        self.metrics: dict[str, float] = {}
        self.columns: dict[str, list[Any]] = {}
        self._number, self._name = number, name

    def __bool__(self) -> bool:
        return bool(self.metrics or self.columns)

    def metric(self, name: str, value: float) -> None:
        """A figure of this call: its mean over an update's calls is in metrics.jsonl, as a component. One that is not
        finite is left out."""
        try:
            if math.isfinite(figure := float(value)):
                self.metrics[str(name)] = figure
        except OverflowError:  # a whole number that no float holds
            return
        except (TypeError, ValueError):
            raise BadReturn(
                f"{self._name}: log_metric({name!r}) takes a number, not a {type(value).__name__}"
            ) from None

    def extra(self, column: str, values: Sequence[Any]) -> None:
        """A value for each completion, which is kept with it in the rollouts."""
        values = list(values)
        if len(values) != self._number:
            raise BadReturn(
                f"{self._name}: log_extra({column!r}) takes one value for each of the {self._number} completions; it "
                f"got {len(values)}"
            )
        self.columns[str(column)] = [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """As JSON can hold it, of bounded length."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:MAX_EXTRA_CHARS]


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
