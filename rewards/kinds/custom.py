"""Your own reward: any `module:function` with the signature that TRL users know, in child processes.

    def short(prompts, completions, **columns):
        return [1.0 if len(completion) < 200 else None for completion in completions]

It may ask for what TRL gives such functions besides: `log_metric(name, value)`, a figure of the call that comes up in
metrics.jsonl as the component `reward/name`; `log_extra(column, values)`, kept with each rollout; and `trainer_state`,
whose `global_step` is the policy's version.

The function is called once a group. When that call fails (raises, dies, takes too long), each completion is tried
alone, so that only the culprit is an error and its neighbours keep their scores. A call that returned something else
than one score each is no completion's fault, and is not tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case, Context, Score, failed, score_each, scored
from rayzero.rewards.children.child import ChildFailure
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.children.work import TRAINER_STEP
from rayzero.rewards.kinds.columns import columns_of
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import CustomComponent


class CustomReward:
    """Calls the function in the children of its pool. None means: does not apply."""

    def __init__(self, settings: CustomComponent, pool: ChildPool) -> None:
        self.settings = settings
        self.pool = pool

    async def start(self) -> None:
        """Fork a first child. Raises ActorStartError when it cannot do its work."""
        await self.pool.start()

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case, in order."""
        if not cases:
            return []
        try:
            return await self._call(cases, retry=not self._splits(cases))
        except ChildFailure as failure:
            if not self._splits(cases) or failure.cause in (ErrorCause.START, ErrorCause.BAD_RETURN):
                return [failed(failure.cause, failure.text, seconds=failure.seconds)] * len(cases)
        return await score_each(cases, self._alone, context.deadline)

    async def close(self) -> None:
        """End the children."""
        await self.pool.close()

    def _splits(self, cases: Sequence[Case]) -> bool:
        return self.settings.isolate and len(cases) > 1

    async def _alone(self, case: Case) -> Score:
        try:
            return (await self._call([case], retry=True))[0]
        except ChildFailure as failure:
            return failed(failure.cause, failure.text, seconds=failure.seconds)

    async def _call(self, cases: Sequence[Case], *, retry: bool) -> list[Score]:
        columns = columns_of(cases, conversational=self.settings.conversational)
        columns[TRAINER_STEP] = [max(case.policy_version for case in cases)]
        reply = await self.pool.run(columns, retry=retry)
        seconds, said = reply.seconds / len(cases), reply.result
        logged: dict[str, Any] = said if isinstance(said, dict) else {"scores": said, "metrics": {}, "extra": {}}
        return [
            scored(
                value,
                full=self.settings.full_score,
                seconds=seconds,
                metrics=logged["metrics"],
                extra={name: values[place] for name, values in logged["extra"].items()},
            )
            for place, value in enumerate(logged["scores"])
        ]
