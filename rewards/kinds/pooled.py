"""Base of rewards whose work may not end: it runs in child processes that are killed at their deadline."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case, Context, Score, failed, score_distinct, scored
from rayzero.rewards.children.child import ChildFailure
from rayzero.rewards.children.pool import ChildPool
from rayzero.services.schema.causes import ErrorCause

_EXHAUSTED = frozenset((ErrorCause.CPU, ErrorCause.MEMORY))
"""What does not depend on how busy the machine is, as a deadline does."""


class BadPromptError(Exception):
    """A row that nothing can be judged by; the message says why."""


class NoAnswerError(Exception):
    """A completion that states no answer; the message says why."""


class PooledReward(ABC):
    """The child gets `item(case)`, which JSON can carry, and replies `[right, reason, fault of the row]`."""

    def __init__(self, pool: ChildPool) -> None:
        self.pool = pool

    @abstractmethod
    def item(self, case: Case) -> list[Any]:
        """What the child needs. Raises BadPromptError or NoAnswerError."""

    def control(self, item: list[Any]) -> list[Any] | None:
        """The item's work without what the model wrote: where it comes to an end, and the item does not, the answer is
        at fault. None: what the row holds may be."""
        return None

    async def start(self) -> None:
        """Fork a first child. Raises ActorStartError when it cannot do its work."""
        await self.pool.start()

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; equal ones are judged once."""
        return await score_distinct(cases, self._key, self._judge, context.deadline)

    async def close(self) -> None:
        """End the children."""
        await self.pool.close()

    async def _judge(self, case: Case) -> Score:
        try:
            item = self.item(case)
        except BadPromptError as error:
            return failed(ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: {error}")
        except NoAnswerError as error:
            return scored(0.0, reason=str(error))
        try:
            reply = await self.pool.run(item)
        except ChildFailure as failure:
            if failure.cause in _EXHAUSTED and await self._is_fine_without(item):
                return scored(0.0, reason=f"the answer exhausts its limits: {failure.text}", seconds=failure.seconds)
            return failed(failure.cause, failure.text, seconds=failure.seconds)
        right, reason, fault = reply.result
        if fault:
            return failed(ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: {fault}", seconds=reply.seconds)
        return scored(float(right), reason=reason, seconds=reply.seconds)

    async def _is_fine_without(self, item: list[Any]) -> bool:
        control = self.control(item)
        try:
            return control is not None and not (await self.pool.run(control)).result[2]
        except ChildFailure:
            return False

    def _key(self, case: Case) -> str:
        try:
            return json.dumps(self.item(case))
        except (BadPromptError, NoAnswerError) as error:
            return f"{type(error).__name__} {case.prompt.prompt_id} {error}"
