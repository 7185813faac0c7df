"""An engine's sessions with a real endpoint, for agents."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Sequence

from rayzero.rollout_workers.episodes.endpoint import EpisodeEndpoint
from rayzero.rollout_workers.episodes.lockstep import Lockstep
from rayzero.rollout_workers.episodes.server import EndpointServer
from rayzero.rollout_workers.episodes.sessions import EpisodeSessions
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.messages import ChatMessage
from tests.episode_models import NotingEngine, pair_tokenizer


class ServedSessions:
    """A rollout worker, as an environment worker sees it: real sessions, a real endpoint, an engine that says things
    at random, or as scripted."""

    def __init__(self, *script: str, temperature_seed: int = 0) -> None:
        self.engine = NotingEngine(pair_tokenizer(), random.Random(temperature_seed), script=list(script))
        settings = RolloutSettings(max_model_tokens=1024)
        self.sessions = EpisodeSessions(settings, self.engine, Lockstep(None, 1.0), lambda: 0)  # type: ignore[arg-type]
        stops = [self.engine.tokenizer.eos_token_id]
        self.sessions.begin(self.engine.tokenizer, stops)
        self.server = EndpointServer(EpisodeEndpoint(self.sessions, lambda: stops))

    async def open_episode(self, request: EpisodeRequest) -> str:
        """As a rollout worker's."""
        return self.sessions.open(request)

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """As a rollout worker's."""
        return await self.sessions.find(session).turn(messages)

    async def close_episode(self, session: str) -> EpisodeRecord:
        """As a rollout worker's."""
        return self.sessions.close(session)

    async def serve_episodes(self) -> str:
        """As a rollout worker's."""
        return await self.server.start("127.0.0.1")

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        """As a rollout worker's."""
        return await self.sessions.find(session).watch(start_s, step_s)


@contextlib.asynccontextmanager
async def served(*script: str) -> AsyncIterator[ServedSessions]:
    """With its server stopped at the end."""
    made = ServedSessions(*script)
    try:
        yield made
    finally:
        await made.server.stop()
