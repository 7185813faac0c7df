"""An engine without a model, for `rayzero env`: what it says is made up, or typed. Sessions, tokens and the endpoint
are a rollout worker's own, so that an agent finds what it would find in a run."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayzero.rollout_workers.episodes.endpoint import EpisodeEndpoint
from rayzero.rollout_workers.episodes.lockstep import Lockstep
from rayzero.rollout_workers.episodes.server import EndpointServer
from rayzero.rollout_workers.episodes.sessions import EpisodeSessions
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Completion, FinishReason, Sampling, VersionSpan

Speak = Callable[[str, Sampling], Awaitable[str]]
"""From the context as text to the turn."""


class SpokenEngine:
    """A `SessionHost`."""

    def __init__(self, settings: RolloutSettings, tokenizer: Any, speak: Speak) -> None:
        """`tokenizer`: transformers'. Raises RecipeError for one that cannot end a turn."""
        if tokenizer.eos_token_id is None:
            raise RecipeError("model.path: its tokenizer names no token that ends a turn")
        stops = [int(tokenizer.eos_token_id)]
        self._tokenizer, self._speak = tokenizer, speak
        self._sessions = EpisodeSessions(settings, self._sample, Lockstep(_hold, 1.0), lambda: 0)
        self._sessions.begin(tokenizer, stops)
        self._server = EndpointServer(EpisodeEndpoint(self._sessions, lambda: stops))

    async def open_episode(self, request: EpisodeRequest) -> str:
        """See `SessionHost`."""
        return self._sessions.open(request)

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """See `SessionHost`."""
        return await self._sessions.find(session).turn(messages)

    async def close_episode(self, session: str) -> EpisodeRecord:
        """See `SessionHost`."""
        return self._sessions.close(session)

    async def serve_episodes(self) -> str:
        """See `SessionHost`."""
        return await self._server.start("127.0.0.1")

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        """See `SessionHost`."""
        return await self._sessions.find(session).watch(start_s, step_s)

    async def close(self) -> None:
        """Serve no longer."""
        await self._server.stop()

    async def _sample(self, request: EpisodeRequest, tokens: NDArray[np.int32], sampling: Sampling) -> Completion:
        text = await self._speak(str(self._tokenizer.decode(tokens.tolist())), sampling)
        said = [*self._tokenizer.encode(text, add_special_tokens=False), self._tokenizer.eos_token_id]
        reason: FinishReason = "stop" if len(said) <= sampling.max_tokens else "length"
        ids = np.asarray(said[: sampling.max_tokens], dtype=np.int32)
        return Completion(
            text=text if reason == "stop" else str(self._tokenizer.decode(ids.tolist())),
            token_ids=ids,
            rollout_logprobs=np.zeros(len(ids), dtype=np.float32),
            version_spans=(VersionSpan(start=0, end=len(ids), policy_version=0),),
            finish_reason=reason,
        )


def open_engine(settings: RolloutSettings, model_path: Path, speak: Speak) -> SpokenEngine:
    """With the tokenizer of a model."""
    from transformers import AutoTokenizer  # takes seconds

    return SpokenEngine(settings, AutoTokenizer.from_pretrained(model_path), speak)


def _hold() -> AbstractAsyncContextManager[None]:
    return contextlib.nullcontext()
