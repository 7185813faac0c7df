"""Work beside the training, one piece at a time: an evaluation or a save that the next of its kind waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class SideTask:
    """Begin the next only after `finish`. What failed is raised there, and at every later `finish`."""

    task: asyncio.Task[None] | None = None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start `work` and return at once."""
        self.task = asyncio.create_task(work)

    async def wait_while(self, condition: Callable[[], object], poll_s: float = 0.25) -> None:
        """Until it ends, well or not, or the condition does not hold any more."""
        while self.task is not None and not self.task.done() and condition():
            await asyncio.wait([self.task], timeout=poll_s)

    def give_up(self) -> None:
        """End it where it is; who waits in `finish` goes on."""
        if self.task is not None:
            self.task.cancel()

    async def finish(self) -> None:
        """Until it ends; at once where there is none."""
        task = self.task
        if task is not None:
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            self.task = None if self.task is task else self.task
