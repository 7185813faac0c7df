"""Work beside the training, one piece at a time: an evaluation or a save that the next of its kind waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class SideTask:
    """Begin the next only after `finish`. What failed is raised there, and at every later `finish`."""

    task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was begun and has not come to its end."""
        return self.task is not None and not self.task.done()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start `work` and return at once."""
        self.task = asyncio.create_task(work)

    async def wait(self, timeout_s: float) -> None:
        """Until it ends, well or not, or the time is over."""
        if self.task is not None:
            await asyncio.wait([self.task], timeout=timeout_s)

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
