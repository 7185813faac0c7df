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
    """1 where the answer equals the prompt's gold answer, or one of a list, else 0. Owns its pool of children.

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
        text, golds, prefilled, fallbacks = self._item(case)
        if not golds:
            kind = type(case.prompt.answer).__name__
            text = f"the gold answer of {case.prompt.prompt_id} must be text, a number or a list of them, not {kind}"
            return failed(ErrorCause.BAD_PROMPT, text)
        for gold in golds:
            score = await self._against((text, gold, prefilled, fallbacks), case.prompt.prompt_id)
            if score.value == 1.0 or score.is_error:
                break
        return score

    async def _against(self, item: tuple[str, str, bool, Any], prompt_id: str) -> Score:
        try:
            reply = await self.pool.run(item)
        except ChildFailure as failure:
            return failed(failure.cause, failure.text, seconds=failure.seconds)
        correct, reason, is_bad_gold = reply.result
        if is_bad_gold:
            return failed(ErrorCause.BAD_PROMPT, f"{prompt_id}: {reason}", seconds=reply.seconds)
        return scored(1.0 if correct else 0.0, reason=reason, seconds=reply.seconds)

    def _item(self, case: Case) -> tuple[str, tuple[str, ...] | None, bool, Any]:
        fallbacks = case.prompt.columns.get(self.fallback_column) if self.fallback_column else None
        return case.text, gold_texts(case.prompt.answer), case.prefilled, fallbacks


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


def gold_texts(answer: Any) -> tuple[str, ...] | None:
    """The gold answers, of which each is right: one, or those of a list; None where it is neither."""
    if isinstance(answer, list | tuple):
        texts = tuple(gold_text(each) for each in answer)
        return None if None in texts else tuple(text for text in texts if text is not None)
    text = gold_text(answer)
    return None if text is None else (text,)


def gold_text(answer: Any) -> str | None:
    """A gold answer as text: strings as they are, numbers as written; None where it is neither."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return None
    return None if isinstance(answer, float) and not math.isfinite(answer) else str(answer)
