"""The worker's calls of vLLM's engine: each has a deadline, and fails at once when the engine dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from rayzero.services.schema.errors import DeadlineError, RayzeroError, WorkerError

T = TypeVar("T")

DEATH_POLL_S = 0.25
"""How often it is looked after an engine that has not answered yet."""


class EngineCalls:
    """Every method raises `WorkerError` when the engine is dead or holds half-loaded weights, and `DeadlineError` when
    it did not answer in time."""

    def __init__(self, name: str, deadline_s: float) -> None:
        """`deadline_s` bounds every call."""
        self.name, self.deadline_s = name, deadline_s
        self.engine: Any = None
        """vLLM's `AsyncLLM`, from its start to its end."""
        self.broken: BaseException | None = None
        """Why its weights cannot be trusted any more."""

    def ready(self) -> Any:
        """The engine, if it runs and its weights can be trusted."""
        if self.broken is not None:
            raise WorkerError(f"{self.name} cannot be trusted since its weights were not loaded: {self.broken!r}")
        if self.engine is None:
            raise WorkerError(f"the engine of {self.name} is not running")
        if self.engine.errored:
            raise WorkerError(f"the engine of {self.name} has died; its log has the cause")
        return self.engine

    async def in_time(self, call: Awaitable[T], what: str) -> T:
        """The answer of the engine; not waited for any longer than the engine lives: vLLM leaves such calls open."""
        answer = asyncio.ensure_future(call)
        try:
            async with asyncio.timeout(self.deadline_s):
                while not answer.done():
                    await asyncio.wait([answer], timeout=DEATH_POLL_S)
                    if not answer.done() and self.engine is not None and self.engine.errored:
                        raise WorkerError(f"the engine of {self.name} died and could not {what}")
                return answer.result()
        except TimeoutError:
            raise DeadlineError(f"the engine of {self.name} did not {what} in {self.deadline_s:g} s") from None
        except RayzeroError:
            raise
        except Exception as error:
            raise WorkerError(f"the engine of {self.name} could not {what}: {error!r}") from None
        finally:
            answer.cancel()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Take requests in without starting them: a batch that starts as a whole is computed the same way each time."""
        engine = self.ready()
        pause = engine.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
        await self.in_time(pause, "hold the engine")
        try:
            yield
        finally:
            await self.in_time(engine.resume_generation(), "release the engine")
