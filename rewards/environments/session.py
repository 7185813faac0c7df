"""The session of one episode at its engine; an engine that fails is named as such, not the worker that drives."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.errors import DeadlineError, EngineFailed, EpisodeClosed, WorkerError
from rayzero.services.schema.interfaces import SessionHost
from rayzero.services.schema.messages import ChatMessage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """An open session. Every method raises EngineFailed where the engine did not do its part."""

    engine: SessionHost
    name: str

    @classmethod
    async def open(cls, engine: SessionHost, request: EpisodeRequest) -> Session:
        """Render the prompt and begin. Raises PromptRefused for one that the model cannot be given."""
        return cls(engine, await _of_engine(engine.open_episode(request)))

    async def turn(self, messages: Sequence[ChatMessage]) -> SessionTurn:
        """What the model says after the conversation that followed the prompt."""
        return await _of_engine(self.engine.turn(self.name, tuple(messages)))

    async def address(self) -> str:
        """`host:port` where an agent may ask for turns by itself."""
        return await _of_engine(self.engine.serve_episodes())

    async def watch(self, start_s: float, step_s: float) -> EpisodeEnd:
        """Returns when an agent is to be ended: see `SessionHost.watch_episode`."""
        return await _of_engine(self.engine.watch_episode(self.name, start_s, step_s))

    async def close(self) -> EpisodeRecord:
        """End it: what was recorded."""
        return await _of_engine(self.engine.close_episode(self.name))


async def _of_engine(call: Awaitable[T]) -> T:
    try:
        return await call
    except (WorkerError, DeadlineError, EpisodeClosed) as error:
        raise EngineFailed(str(error)) from None
