"""Math accuracy: the last box after the last </think> against the gold answer, in child processes.

Symbolic comparison of what a model wrote can take for ever or all memory, in C code that no signal interrupts: the
child that compares is killed at the deadline, which is then an error, never a wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rayzero.rewards.base import Case, Context, Score, failed, score_distinct, scored
from rayzero.rewards.children.child import ChildFailure
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.math.rules import rules_of
from rayzero.services.schema.causes import ErrorCause

if TYPE_CHECKING:
    from rayzero.services.schema.config.math import MathSettings


class MathReward:
    """1 where the answer equals the prompt's gold answer, else 0. Owns its pool of children.

    `fallback_column`: column that overrides the recipe's fallbacks case by case, a tuple of their names.
    """

    def __init__(self, pool: ChildPool, fallback_column: str | None = None) -> None:
        self.pool = pool
        self.fallback_column = fallback_column

    async def start(self) -> None:
        """Fork a first child. Raises ActorStartError when it cannot do its work."""
        await self.pool.start()

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; equal (completion, answer) pairs are compared once."""
        return await score_distinct(cases, self._item, self._judge, context.deadline)

    async def close(self) -> None:
        """End the children."""
        await self.pool.close()

    async def _judge(self, case: Case) -> Score:
        gold = gold_text(case.prompt.answer)
        if gold is None:
            kind = type(case.prompt.answer).__name__
            text = f"the gold answer of {case.prompt.prompt_id} must be text or a number, not {kind}"
            return failed(ErrorCause.BAD_PROMPT, text)
        try:
            reply = await self.pool.run(self._item(case))
        except ChildFailure as failure:
            return failed(failure.cause, failure.text, seconds=failure.seconds)
        correct, reason, is_bad_gold = reply.result
        if is_bad_gold:
            return failed(ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: {reason}", seconds=reply.seconds)
        return scored(1.0 if correct else 0.0, reason=reason, seconds=reply.seconds)

    def _item(self, case: Case) -> tuple[str, str | None, bool, Any]:
        fallbacks = case.prompt.columns.get(self.fallback_column) if self.fallback_column else None
        return case.text, gold_text(case.prompt.answer), case.prefilled, fallbacks


def math_reward(
    rules: MathSettings | None = None,
    *,
    num_children: int,
    max_asleep: int = 32,
    cpu_s: float | None = 2.0,
    deadline_s: float = 8.0,
    memory_bytes: int = 2**30,
    warm_first: bool = False,
    fallback_column: str | None = None,
) -> MathReward:
    """The reward with a pool of its own. `rules` None: the defaults."""
    pool = ChildPool(
        "rayzero.rewards.children.work:math_verifier",
        rules_of(rules),
        num_children=num_children,
        max_asleep=max_asleep,
        cpu_s=cpu_s,
        deadline_s=deadline_s,
        memory_bytes=memory_bytes,
        preload=("rayzero.rewards.children.work", "rayzero.rewards.math.verify"),
        warm_up="rayzero.rewards.children.warm_up:math_steps",
        warm_first=warm_first,
    )
    return MathReward(pool, fallback_column)


def gold_text(answer: Any) -> str | None:
    """A gold answer as text: strings as they are, numbers as written; None where it is neither."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        return None
    return str(answer)
