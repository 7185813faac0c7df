"""Rewards of `rayzero grade` whose lines carry settings of their own: one reward for each settings that occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from pydantic import ValidationError

from rayzero.rewards.base import Case, Context, Reward, Score, failed
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import AnyComponent

_COMPONENTS = {one.model_fields["kind"].default: one for one in get_args(get_args(AnyComponent)[0])}
_COLUMN_SETTINGS = {"options_column": "options", "aliases_column": "aliases"}


class LineSettingsReward:
    """The reward of one kind; a case's columns that are named like its settings stand for them."""

    def __init__(self, kind: str, num_children: int) -> None:
        self._component = _COMPONENTS[kind]
        self._capacity = Capacity(num_children=num_children)
        self._rewards: dict[str, Reward] = {}

    async def start(self) -> None:
        """Start the reward with the default settings. Raises ActorStartError when it cannot work."""
        await self._reward({})

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case, in order."""
        return [await self._one(case, context) for case in cases]

    async def close(self) -> None:
        """End every reward."""
        for reward in self._rewards.values():
            await reward.close()

    async def _one(self, case: Case, context: Context) -> Score:
        own = {name: value for name, value in case.prompt.columns.items() if name in self._component.model_fields}
        try:
            reward = await self._reward(own)
        except ValidationError as error:
            return failed(ErrorCause.BAD_PROMPT, f"{case.prompt.prompt_id}: {error.errors()[0]['msg']}")
        return (await reward.score([case], context))[0]

    async def _reward(self, own: dict[str, object]) -> Reward:
        columns = {name: column for name, column in _COLUMN_SETTINGS.items() if name in self._component.model_fields}
        component = self._component.model_validate(columns | own)
        key = component.model_dump_json()
        if key not in self._rewards:
            self._rewards[key] = build_reward(component, self._capacity)
            await self._rewards[key].start()
        return self._rewards[key]
