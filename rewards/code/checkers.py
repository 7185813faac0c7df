"""Custom checkers that a recipe lists: functions of the user's own, called in a killable child without secrets.

A data row may name one of them and no other: rows are data, and what they name must not be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.rewards.children.child import ChildFailure
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.code.spec import CodeSpec, SpecError
from rayzero.rewards.sandbox.inside import wire

CHECKER_DEADLINE_S = 30.0
MEMORY_BYTES = 2 << 30


class CheckerError(Exception):
    """A checker that gives no verdict, even on the expected output; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckerReply:
    """What a checker says of an output."""

    passed: bool
    reason: str


class ListedCheckers:
    """Calls them. Use from one event loop; `close` ends the children."""

    def __init__(self, names: Sequence[str], *, num_children: int) -> None:
        """`names`: `module:function` each. No child starts before the first output."""
        self._names = frozenset(names)
        self._pool = ChildPool(
            "rayzero.rewards.children.work:checker_caller",
            tuple(names),
            num_children=num_children,
            what=", ".join(names),
            deadline_s=CHECKER_DEADLINE_S,
            memory_bytes=MEMORY_BYTES,
        )

    def require(self, spec: CodeSpec) -> None:
        """SpecError for a spec that names a function which is not listed."""
        checkers = [spec.checker, *(test.checker for test in spec.tests if test.checker is not None)]
        for name in (checker.function for checker in checkers):
            if name and name not in self._names:
                known = ", ".join(sorted(self._names)) or "none"
                raise SpecError(
                    f"checker.custom: {name[:100]} is not among the recipe's `checkers` of the code reward ({known}): "
                    "a row may only name one that is listed there (rayzero grade: --checker module:function)"
                )

    async def judge(self, name: str, given: Any, output: Any, expected: Any) -> CheckerReply:
        """What the checker says. CheckerError where it cannot; WireError for an output that it cannot be given."""
        item = (name, _plain(given), _plain(output), _plain(expected))
        try:
            passed, reason = (await self._pool.run(item)).result
        except ChildFailure as failure:
            raise CheckerError(str(failure)) from None
        return CheckerReply(passed=bool(passed), reason="" if passed else str(reason))

    async def close(self) -> None:
        """End the children."""
        await self._pool.close()


def _plain(value: Any) -> Any:
    """Of builtin types that a child can be sent: an iterator as a fresh one over a list."""
    return wire.decode(wire.encode(value))
