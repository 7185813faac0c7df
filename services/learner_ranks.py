"""Several learner actors as the one learner that the controller knows: every rank is asked, rank 0 answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.remote import RemoteLearner
from services.schema.errors import WorkerError
from services.schema.messages import Group, UpdateResult, WeightManifest

T = TypeVar("T")


class LearnerRanks(RemoteLearner):
    """Rank 0's handle, with the other ranks behind it. The transfer of weights is rank 0's alone.

    FSDP's collectives need all ranks: a call that one of them fails would leave the others waiting in it, so the first
    failure ends the call, and the whole learner is replaced (services/learner_keeper.py).
    """

    def __init__(self, ranks: Sequence[RemoteLearner]) -> None:
        first = ranks[0]
        super().__init__(first.name, first.handle, first.deadlines)
        self.pid, self.node = first.pid, first.node
        self._ranks = ranks

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """See `Learner`."""
        return await self._all(lambda rank: RemoteLearner.update(rank, groups, policy_version))

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Learner`."""
        return await self._all(lambda rank: RemoteLearner.logprobs(rank, prompt_token_ids, token_ids))

    async def sft_step(self, examples: Sequence[tuple[Any, Any]], learning_rate: float) -> dict[str, float]:
        """See `RemoteLearner`."""
        return await self._all(lambda rank: RemoteLearner.sft_step(rank, examples, learning_rate))

    async def end_sft(self) -> None:
        """See `RemoteLearner`."""
        await self._all(RemoteLearner.end_sft)

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        """See `Learner`."""
        return await self._all(lambda rank: RemoteLearner.prepare_weights(rank, policy_version))

    async def save_checkpoint(self, directory: str) -> None:
        """See `Learner`."""
        await self._all(lambda rank: RemoteLearner.save_checkpoint(rank, directory))

    async def load_checkpoint(self, directory: str) -> None:
        """See `Learner`."""
        await self._all(lambda rank: RemoteLearner.load_checkpoint(rank, directory))

    async def shutdown(self) -> None:
        """See `Learner`."""
        await asyncio.gather(*(RemoteLearner.shutdown(rank) for rank in self._ranks))

    async def _all(self, call: Callable[[RemoteLearner], Coroutine[Any, Any, T]]) -> T:
        tasks = [asyncio.create_task(call(rank)) for rank in self._ranks]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [task.exception() for task in tasks if task.done() and task.exception() is not None]
            if failed and isinstance(failed[0], BaseException):
                raise failed[0]
            return tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            if any(not task.done() for task in tasks):
                await asyncio.gather(*tasks, return_exceptions=True)


def first_of(ranks: Sequence[RemoteLearner]) -> RemoteLearner:
    """What the controller is given: the only rank as it is, several as one."""
    if not ranks:
        raise WorkerError("the learner has no rank")
    return ranks[0] if len(ranks) == 1 else LearnerRanks(ranks)
