"""A runner whose groups end as the test says, without workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import SlotState, WorkerSlot
from rayzero.services.loop.group_buffer import GroupState
from rayzero.services.loop.group_runner import GroupAborted, GroupRunner
from rayzero.services.schema.episodes import Branch, EpisodeEnd
from rayzero.services.schema.messages import Completion, Group, GroupRequest
from tests.fakes import make_completion, make_group


async def no_worker(name: str) -> Any:
    raise AssertionError(f"{name} is not needed")


def make_path(marks: str, version: int = 0) -> Completion:
    """`SSOS`: two sampled tokens, an observed one, a sampled one."""
    sampled = np.array([mark == "S" for mark in marks], dtype=bool)
    logprobs = np.where(sampled, -0.5, np.nan).astype(np.float32)
    return replace(make_completion(version, num_tokens=len(marks)), rollout_logprobs=logprobs, is_sampled=sampled)


def make_episode(
    main: str,
    *branches: tuple[int, int, str],
    versions: tuple[int, int] = (0, 0),
    end: EpisodeEnd = EpisodeEnd.ANSWERED,
) -> Completion:
    """A main completion and its branches, (parent, fork, marks) each; `versions`: the main one's and theirs."""
    made = tuple(
        Branch(parent=parent, fork=fork, completion=make_path(marks, versions[1])) for parent, fork, marks in branches
    )
    return replace(make_path(main, versions[0]), branches=made, end=end)


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
