"""All episodes that an engine has open: found by their sessions' ids, ended with their group, forgotten if left."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from rayzero.rollout_workers.episodes.lockstep import Lockstep
from rayzero.rollout_workers.episodes.rendering import DialogueRenderer
from rayzero.rollout_workers.episodes.session import EpisodeSession, SessionParts, TurnSampler
from rayzero.rollout_workers.episodes.tool_calls import CallNumbers, TurnParser, parser_of
from rayzero.rollout_workers.templates import Tools, render, room_after, with_arguments
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.episodes import EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import EpisodeClosed, RecipeError, WorkerError

logger = logging.getLogger(__name__)

IDLE_S = 4 * 3600.0
"""An episode that was asked for nothing so long lost its driver: no step of an environment may take that long."""
MAX_REMEMBERED = 10_000
"""Closed sessions that are known from such as never were."""


class EpisodeSessions:
    """Of one engine. Takes requests once the engine is up and `tokenizer` set."""

    def __init__(
        self, settings: RolloutSettings, sample: TurnSampler, lockstep: Lockstep, version: Callable[[], int]
    ) -> None:
        """`version`: the policy version of now."""
        self._settings, self._sample, self._lockstep, self._version = settings, sample, lockstep, version
        self._tokenizer: Any = None
        self._renderer: DialogueRenderer | None = None
        self._open: dict[str, EpisodeSession] = {}
        self._closed: dict[str, None] = {}

    def begin(self, tokenizer: Any, stop_token_ids: Sequence[int]) -> None:
        """The engine is up."""
        stop_texts = [str(tokenizer.decode([token])) for token in stop_token_ids]
        self._tokenizer = tokenizer
        as_told = with_arguments(tokenizer, self._settings)
        self._renderer = DialogueRenderer(as_told, self._settings.prompt_template, stop_texts)

    @property
    def max_model_tokens(self) -> int:
        """Longest context with its turn."""
        return self._settings.max_model_tokens

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self._tokenizer

    def open(self, request: EpisodeRequest) -> str:
        """Begin an episode; its session's id, of 128 random bits.

        Raises:
            PromptRefused: the prompt cannot be rendered, or leaves no room.
            RecipeError: the recipe's template or parser can't do episodes with this model.
        """
        self._forget_the_idle()
        try:
            session = self._make(request)
        except Exception:
            self._lockstep.withdraw(request.wave)
            raise
        self._give_up_earlier(request)
        session_id = secrets.token_urlsafe(16)
        self._open[session_id] = session
        self._lockstep.join(request.wave, place_of(request))
        return session_id

    def find(self, session_id: str) -> EpisodeSession:
        """An open one.

        Raises:
            EpisodeClosed: it is closed, or never was.
        """
        if (session := self._open.get(session_id)) is not None:
            return session
        if session_id in self._closed:
            raise EpisodeClosed("the episode is over: its session is closed")
        raise EpisodeClosed("there is no such session at this engine")

    def was_here(self, session_id: str) -> bool:
        """Whether it is closed, as far as is remembered."""
        return session_id in self._closed

    def close(self, session_id: str) -> EpisodeRecord:
        """End one; what it recorded.

        Raises:
            EpisodeClosed: it is closed already, or never was.
            WorkerError: the engine could not sample its last turn.
        """
        session = self.find(session_id)
        del self._open[session_id]
        self._closed[session_id] = None
        while len(self._closed) > MAX_REMEMBERED:
            del self._closed[next(iter(self._closed))]
        try:
            return session.close()
        finally:
            self._lockstep.leave(session.request.wave, place_of(session.request))

    def abort(self, group_id: int) -> None:
        """No episode of the group takes another turn; their sessions stay until they are closed."""
        for session in self._open.values():
            if session.request.group_id == group_id:
                session.abort()
                self._lockstep.leave(session.request.wave, place_of(session.request))

    def _make(self, request: EpisodeRequest) -> EpisodeSession:
        assert self._renderer is not None
        if self._settings.prompt_template == "r1_zero":
            raise RecipeError("rollout.prompt_template r1_zero has no second turn: episodes need chat or text")
        text, prompt = render(request.prompt, self._settings, self._tokenizer, request.tools)
        room_after(request.prompt, len(prompt), self._settings)
        numbers = CallNumbers()

        def parser(tools: Tools) -> TurnParser:
            return parser_of(request.tool_parser, self._tokenizer, tools, numbers)

        parser(request.tools)  # a name that is wrong is found now
        parts = SessionParts(
            renderer=self._renderer,
            parser=parser,
            tokenizer=self._tokenizer,
            sample=self._sample,
            max_model_tokens=self._settings.max_model_tokens,
        )
        return EpisodeSession(request, text, prompt, self._version(), parts)

    def _give_up_earlier(self, request: EpisodeRequest) -> None:
        """An episode that is tried again has lost its driver: its wave must not wait for the attempt before."""
        place = place_of(request)
        for session in self._open.values():
            if place_of(session.request) == place and not session.is_aborted:
                session.abort()
                self._lockstep.leave(session.request.wave, place)

    def _forget_the_idle(self) -> None:
        longest = time.monotonic() - IDLE_S
        for session_id in [each for each, session in self._open.items() if session.used_at < longest]:
            logger.warning("a session was left alone for %g s and is closed", IDLE_S)
            with contextlib.suppress(WorkerError):
                self.close(session_id)


def place_of(request: EpisodeRequest) -> tuple[int, int]:
    """An episode's order within its wave."""
    return request.group_id, request.index
