"""Drives one episode: the model speaks, the environment answers, until one of them, or a limit, ends it.

    reset ─► open the session ─► turn ─► answer ─► turn ─► answer ─► … ─► get_reward ─► close: the record

Tokens are the session's alone: nothing here can forge or lose one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rayzero.rewards.environments.live import Answer, LiveEnvironment
from rayzero.rewards.environments.masking import without_turns
from rayzero.rewards.environments.session import Session
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import (
    EpisodeEnd,
    EpisodeOutcome,
    EpisodeRecord,
    EpisodeRequest,
    Turn,
)
from rayzero.services.schema.errors import EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost
from rayzero.services.schema.messages import ChatMessage, Completion, Prompt


@dataclass(slots=True)
class Episode:
    """One episode, from its reset to its record."""

    request: EpisodeRequest
    engine: SessionHost
    environment: LiveEnvironment
    settings: PythonEnvironment
    clock: Callable[[], float] = time.monotonic
    messages: list[ChatMessage] = field(default_factory=list)
    """After the prompt."""
    environment_s: list[float] = field(default_factory=list)
    """After each turn."""
    turn_rewards: list[float | None] = field(default_factory=list)
    """Of each turn that was answered."""
    masked: set[int] = field(default_factory=set)
    """Turns that are not trained on."""
    num_turns: int = 0
    num_calls: int = 0
    num_failed: int = 0

    async def run(self) -> EpisodeRecord:
        """All of it.

        Raises:
            EngineFailed: the engine did not do its part.
            PromptRefused: the model cannot be given the prompt.
        """
        reward, reason = None, ""
        try:
            observation = await self.environment.reset(self.request)
        except EnvironmentFailed as error:
            session = await self._open(None)
            return await self._close(session, EpisodeEnd.ENVIRONMENT_ERROR, None, f"reset: {error}")
        session = await self._open(observation)
        try:
            async with asyncio.timeout(self.settings.limits.episode_s):
                end = await self._converse(session)
            if end is EpisodeEnd.STEP_DEADLINE:
                reason = f"the environment did not answer within {self.settings.limits.step_s:g} s"
        except TimeoutError:
            end = EpisodeEnd.EPISODE_DEADLINE
            reason = f"it took longer than {self.settings.limits.episode_s:g} s"
        except EnvironmentFailed as error:
            end, reason = EpisodeEnd.ENVIRONMENT_ERROR, str(error)
        if end not in (EpisodeEnd.ENVIRONMENT_ERROR, EpisodeEnd.ABORTED) and self.environment.process.is_alive:
            try:
                reward = await self.environment.reward()
            except EnvironmentFailed as error:
                end, reason = EpisodeEnd.ENVIRONMENT_ERROR, str(error)
        return await self._close(session, end, reward, reason)

    async def _converse(self, session: Session) -> EpisodeEnd:
        while True:
            turn = await session.turn(self.messages)
            if turn.num_tokens or turn.end is None:
                self.messages.append(turn.message)
                self.num_turns += 1
            if turn.end is not None:
                return turn.end
            if turn.finish_reason == "abort":
                return EpisodeEnd.ABORTED
            if turn.finish_reason == "length":
                return EpisodeEnd.MAX_TOKENS
            answer = await self._answer(turn.message)
            if answer.end is not None:
                return answer.end
            if self.num_turns >= self.settings.limits.turns:
                return EpisodeEnd.MAX_TURNS

    async def _answer(self, message: ChatMessage) -> Answer:
        started = self.clock()
        self.environment_s.append(0.0)
        self.turn_rewards.append(None)
        try:
            answer = await self.environment.answer(message)
        finally:
            self.environment_s[-1] = self.clock() - started
        self.turn_rewards[-1] = answer.reward
        self.messages += answer.messages
        self.num_calls += answer.num_calls
        self.num_failed += answer.num_failed
        if answer.is_malformed and self.settings.malformed == "mask":
            self.masked.add(self.num_turns - 1)
        return answer

    async def _open(self, observation: str | None) -> Session:
        prompt = with_observation(self.request.prompt, observation)
        return await Session.open(self.engine, replace(self.request, prompt=prompt))

    async def _close(self, session: Session, end: EpisodeEnd, reward: float | None, reason: str) -> EpisodeRecord:
        record = await session.close()
        outcome = EpisodeOutcome(
            end=end,
            reward=reward,
            messages=tuple(self.messages),
            turn_rewards=tuple(self.turn_rewards) if any(each is not None for each in self.turn_rewards) else (),
            environment_s=tuple(self.environment_s),
            metrics={"tool_calls": float(self.num_calls), "tool_failures": float(self.num_failed)},
            reason=reason,
        )
        completion = replace(record.completion, end=end, outcome=outcome)
        completion = _answered(completion, self.environment_s, self.turn_rewards)
        return replace(record, completion=without_turns(completion, self.masked))


def with_observation(prompt: Prompt, observation: str | None) -> Prompt:
    """The prompt, and at the end of its last message what the environment says first."""
    if observation is None:
        return prompt
    *before, last = prompt.messages
    return replace(prompt, messages=(*before, replace(last, content=last.content + observation)))


def _answered(completion: Completion, environment_s: list[float], rewards: list[float | None]) -> Completion:
    """Each turn with the environment's seconds after it, and what it said of the turn. A branch's turns follow those
    that stand before it."""
    seconds, given = iter(environment_s), iter(rewards)

    def answered(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        return tuple(replace(turn, environment_s=next(seconds, 0.0), reward=next(given, None)) for turn in turns)

    main = replace(completion, turns=answered(completion.turns))
    branches = tuple(
        replace(branch, completion=replace(branch.completion, turns=answered(branch.completion.turns)))
        for branch in completion.branches
    )
    return replace(main, branches=branches)
