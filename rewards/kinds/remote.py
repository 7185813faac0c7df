"""A reward server of your own, asked over HTTP once a group.

    POST {"prompts": [[{role, content}, …], …], "completions": [text, …], "columns": {name: [value, …], …}}
    200  {"rewards": [number | null, …]}

A server that cannot be reached or answers nonsense is an error of the whole group, never a reward of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayzero.rewards.base import Case, Context, Score, failed, scored
from rayzero.rewards.kinds.columns import columns_of
from rayzero.rewards.kinds.json_client import JsonClient, ServerFailure
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import RemoteComponent


class RemoteReward:
    """What the server says. null means: does not apply."""

    def __init__(self, settings: RemoteComponent) -> None:
        self.settings = settings
        self.client = JsonClient(
            settings.url,
            deadline_s=settings.deadline_s,
            max_concurrency=settings.max_concurrency,
            token_env=settings.token_env,
        )

    async def start(self) -> None:
        """Nothing to start."""

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case, in order."""
        if not cases:
            return []
        columns = columns_of(cases, conversational=True)
        payload = {
            "prompts": columns.pop("prompts"),
            "completions": [case.text for case in cases],
            "columns": {name: column for name, column in columns.items() if name != "completions"},
        }
        try:
            values = _rewards(await self.client.post(payload), len(cases))
        except ServerFailure as failure:
            return [failed(failure.cause, failure.text)] * len(cases)
        return [scored(value, full=self.settings.full_score) for value in values]

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def _rewards(reply: Any, number: int) -> list[float | None]:
    values = reply.get("rewards") if isinstance(reply, dict) else None
    if not isinstance(values, list) or len(values) != number:
        raise ServerFailure(
            ErrorCause.BAD_REPLY, f'expected {{"rewards": [{number} numbers or nulls]}}, got {str(reply)[:200]}'
        )
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ServerFailure(ErrorCause.BAD_REPLY, f"{str(value)[:100]!r} is neither a number nor null")
    return values
