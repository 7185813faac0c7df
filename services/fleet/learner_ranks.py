"""Several learner actors as the one learner that the controller knows: the ranks are asked, rank 0 answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rayzero.services.fleet.calls import AskedRanks, Call, LearnerCalls, P, T
from rayzero.services.fleet.remote import RemoteLearner, in_object_store
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.interfaces import LearnerHandle


class LearnerRanks(LearnerCalls):
    """Rank 0, with the other ranks behind it.

    FSDP's collectives need all ranks: a call that one of them fails would leave the others waiting in it, so the first
    failure ends the call, and the whole learner is replaced (services/fleet/learner_supervisor.py).
    """

    revivals = 0
    """All ranks have one life: services/fleet/learner_supervisor.py starts others."""

    def __init__(self, ranks: Sequence[RemoteLearner]) -> None:
        """`ranks` in the order of their numbers."""
        self.pid, self.node = ranks[0].pid, ranks[0].node
        self._ranks = ranks

    async def take(self, call: Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """All ranks at once, or rank 0 alone, as the table says."""
        ranks = self._ranks if call.ranks is AskedRanks.ALL else self._ranks[:1]
        given: Any = args
        if call.shares_first and args:
            given = (await in_object_store(args[0]), *args[1:])
        tasks = [asyncio.create_task(rank.take(call, *given, **kwargs)) for rank in ranks]
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

    async def shutdown(self) -> None:
        """See `LearnerHandle`."""
        await asyncio.gather(*(rank.shutdown() for rank in self._ranks))


def first_of(ranks: Sequence[RemoteLearner]) -> LearnerHandle:
    """What the controller is given: the only rank as it is, several as one."""
    if not ranks:
        raise WorkerError("the learner has no rank")
    return ranks[0] if len(ranks) == 1 else LearnerRanks(ranks)
