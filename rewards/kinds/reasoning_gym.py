"""Tasks of `reasoning-gym`, judged by the task's own score function: many accept more answers than the one they state.

The answer is what stands in the last box after the last </think>. The function is the package's, not the sandbox's: it
runs in child processes with limits, and is trusted with what a model wrote as much as the package is.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rayzero.rewards.base import Case, Context, Score, failed, score_distinct, scored
from rayzero.rewards.children.child import ChildFailure
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.math.reading.extract import extract
from rayzero.services.schema.causes import ErrorCause

TASK_COLUMN, ENTRY_COLUMN = "reasoning_gym_task", "reasoning_gym_entry"


class ReasoningGymReward:
    """The task's score of the answer, 0 … 1; 1 is correct. Needs the columns of a `reasoning_gym` source."""

    def __init__(self, pool: ChildPool) -> None:
        self.pool = pool

    async def start(self) -> None:
        """Fork a first child. Raises ActorStartError when it cannot do its work."""
        await self.pool.start()

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; equal completions of one question are judged once."""
        return await score_distinct(cases, _key, self._judge, context.deadline)

    async def close(self) -> None:
        """End the children."""
        await self.pool.close()

    async def _judge(self, case: Case) -> Score:
        columns = case.prompt.columns
        if not all(isinstance(columns.get(name), str) for name in (TASK_COLUMN, ENTRY_COLUMN)):
            return failed(
                ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id} has no {TASK_COLUMN}: it is from another source"
            )
        found = extract(case.text, prefilled=case.prefilled)
        if found.answer is None:
            return scored(0.0, reason=found.problem or "no answer")
        try:
            reply = await self.pool.run((found.answer.strip(), columns[TASK_COLUMN], columns[ENTRY_COLUMN]))
        except ChildFailure as failure:
            return failed(failure.cause, failure.text, seconds=failure.seconds)
        return scored(reply.result, reason=f"{columns[TASK_COLUMN]} gives it {reply.result:g}", seconds=reply.seconds)


def scorer(_: Any) -> Callable[[tuple[str, str, str]], float]:
    """For a child: scores (answer, task, entry as JSON)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of a package that it imports
        from reasoning_gym import get_score_answer_fn

    def score(item: tuple[str, str, str]) -> float:
        answer, task, entry = item
        return min(1.0, max(0.0, float(get_score_answer_fn(task)(answer, json.loads(entry)))))

    return score


def _key(case: Case) -> tuple[str, bool, Any]:
    return case.text, case.prefilled, case.prompt.columns.get(ENTRY_COLUMN)
