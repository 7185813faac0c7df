"""A runner whose groups end as the test says, without workers."""

from __future__ import annotations

import asyncio
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import SlotState, WorkerSlot
from rayzero.services.loop.group_buffer import GroupState
from rayzero.services.loop.group_runner import GroupAborted, GroupRunner
from rayzero.services.schema.messages import Group, GroupRequest
from tests.fakes import make_group


async def no_worker(name: str) -> Any:
    raise AssertionError(f"{name} is not needed")


class ScriptedRunner(GroupRunner):
    """`rewards_of` a group id, or the exception it ends with; without either it waits until it is aborted."""

    def __init__(self, *workers: str) -> None:
        rollouts: Fleet[Any] = Fleet("rollout", no_worker, limit=1)
        rollouts.slots += [WorkerSlot(name, state=SlotState.SERVING) for name in workers]
        super().__init__(rollouts, Fleet("reward", no_worker, limit=1), max_attempts=1, lease_deadline_s=1.0)
        self.ends: dict[int, tuple[float, ...] | Exception] = {}
        self.asked: list[tuple[int, str, bool]] = []
        """(group id, worker, priority) in the order in which groups were begun."""
        self.hangs: dict[int, asyncio.Event] = {}

    async def run(self, request: GroupRequest, on_move: Any = None, worker: str = "", priority: bool = False) -> Group:
        number = request.group_id
        self.asked.append((number, worker, priority))
        if on_move is not None:
            on_move(GroupState.GENERATING, worker or "rollout-0")
        await asyncio.sleep(0)
        end = self.ends.get(number)
        if end is None:
            self.hangs[number] = asyncio.Event()
            await self.hangs[number].wait()
            raise GroupAborted
        if isinstance(end, Exception):
            raise end
        return make_group(number, rewards=end)

    async def abort(self, group_id: int, worker: str) -> None:
        self.hangs[group_id].set()
