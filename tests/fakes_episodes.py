"""Scripted stand-ins for what episodes need: an engine that says what the test wants, and environments as users write
them."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rayzero.rewards.environments.session import Session
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import (
    EpisodeEnd,
    EpisodeOutcome,
    EpisodeRecord,
    EpisodeRequest,
    SessionTurn,
    ToolCall,
    Turn,
)
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.interfaces import SessionHost
from rayzero.services.schema.messages import ChatMessage, Completion, Prompt, Sampling, VersionSpan
from tests.fakes import Events, FakeRolloutWorker

Speaker = Callable[[EpisodeRequest, Sequence[ChatMessage]], ChatMessage]


def said(content: str, *calls: ToolCall) -> ChatMessage:
    """What a model says in a turn."""
    return ChatMessage(role="assistant", content=content, tool_calls=calls)


def calls(name: str, **arguments: Any) -> ChatMessage:
    """A turn that calls one tool."""
    return said("", ToolCall(name=name, arguments=arguments, call_id="call-0"))


def in_turn(*messages: ChatMessage) -> Speaker:
    """Says these, one after the other, then `done`."""

    def speak(request: EpisodeRequest, conversation: Sequence[ChatMessage]) -> ChatMessage:
        spoken = sum(message.role == "assistant" for message in conversation)
        return messages[spoken] if spoken < len(messages) else said("done")

    return speak


class FakeSessions:
    """An engine's sessions: a token a letter, one token after each observation."""

    def __init__(self, speak: Speaker, version: int = 0) -> None:
        self.speak, self.version = speak, version
        self.open: dict[str, EpisodeRequest] = {}
        self.conversations: dict[str, tuple[ChatMessage, ...]] = {}
        self.requests: list[EpisodeRequest] = []
        self.dead = False
        self.delay_s = 0.0
        self.ends: dict[int, EpisodeEnd] = {}
        """Why a session takes no further turn, by the number of turns."""

    async def open_episode(self, request: EpisodeRequest) -> str:
        """As a rollout worker's."""
        self._live()
        name = f"session-{len(self.requests)}"
        self.requests.append(request)
        self.open[name], self.conversations[name] = request, ()
        return name

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """As a rollout worker's: the whole conversation after the prompt comes with every turn."""
        self._live()
        await asyncio.sleep(self.delay_s)
        assert tuple(messages[: len(self.conversations[session])]) == self.conversations[session]
        message = self.speak(self.open[session], messages)
        self.conversations[session] = (*messages, message)
        number = sum(each.role == "assistant" for each in self.conversations[session])
        return SessionTurn(message=message, finish_reason="stop", num_tokens=2, end=self.ends.get(number))

    async def close_episode(self, session: str) -> EpisodeRecord:
        """As a rollout worker's."""
        self._live()
        request, messages = self.open.pop(session), self.conversations[session]
        sampled: list[bool] = []
        turns: list[Turn] = []
        for message in messages:
            if message.role == "assistant":
                turns.append(Turn(start=len(sampled), end=len(sampled) + 2, finish_reason="stop"))
            sampled += [message.role == "assistant"] * 2
        mask = np.asarray(sampled, dtype=np.bool_)
        number = len(sampled)
        text = request.prompt.messages[-1].content
        return EpisodeRecord(
            prompt_token_ids=np.frombuffer(text.encode("utf-32-le"), dtype=np.int32),
            prompt_text=text,
            completion=Completion(
                text="".join(message.content for message in messages),
                token_ids=np.arange(number, dtype=np.int32),
                rollout_logprobs=np.where(mask, -0.5, np.nan).astype(np.float32),
                version_spans=(VersionSpan(start=0, end=number, policy_version=self.version),),
                finish_reason="stop",
                is_sampled=mask,
                turns=tuple(turns),
            ),
        )

    async def serve_episodes(self) -> str:
        """Where nothing listens: these sessions are asked by drivers alone."""
        return "127.0.0.1:9"

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        """As a rollout worker's, of an agent that never asks."""
        await asyncio.sleep(start_s)
        return EpisodeEnd.ENVIRONMENT_ERROR

    def _live(self) -> None:
        if self.dead:
            raise WorkerError("the engine is dead")


class FakeEngine(FakeRolloutWorker):
    """A rollout worker with sessions."""

    def __init__(self, name: str, events: Events, speak: Speaker) -> None:
        super().__init__(name, events)
        self.spoken = FakeSessions(speak)

    async def open_episode(self, request: EpisodeRequest) -> str:
        """As a rollout worker's."""
        self._step("open")
        self.spoken.version = self.version
        return await self.spoken.open_episode(request)

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """As a rollout worker's."""
        self._step("turn")
        return await self.spoken.turn(session, messages)

    async def close_episode(self, session: str) -> EpisodeRecord:
        """As a rollout worker's."""
        self._step("close")
        return await self.spoken.close_episode(session)


class FakeEnvironmentWorker:
    """Drives episodes of two turns; `rewards` by the episode's index."""

    def __init__(self, name: str, events: Events, rewards: Sequence[float] = (0.0, 1.0)) -> None:
        self.name, self.events, self.rewards = name, events, rewards
        self.pid: int | None = None
        self.node = ""
        self.failures: list[Exception] = []
        self.broken = 0
        """So many episodes end because the environment fails."""
        self.end = EpisodeEnd.ANSWERED

    async def run_episode(self, request: EpisodeRequest, engine: SessionHost) -> EpisodeRecord:
        """As an environment worker's."""
        self.events.append(f"{self.name}.run {request.group_id}.{request.index}")
        if self.failures:
            raise self.failures.pop(0)
        session = await Session.open(engine, request)
        messages: list[ChatMessage] = []
        for _ in range(2):
            messages.append((await session.turn(messages)).message)
            messages.append(ChatMessage(role="user", content="+"))
        record = await session.close()
        reward: float | None = self.rewards[request.index % len(self.rewards)]
        end, reason = self.end, ""
        if self.broken:
            self.broken -= 1
            end, reward, reason = EpisodeEnd.ENVIRONMENT_ERROR, None, "it broke"
        outcome = EpisodeOutcome(end=end, reward=reward, messages=tuple(messages), reason=reason)
        return replace(record, completion=replace(record.completion, end=end, outcome=outcome))

    async def shutdown(self) -> None:
        """As an environment worker's."""
        self.events.append(f"{self.name}.shutdown")


def episode_request(index: int = 0, seed: int = 7, **columns: Any) -> EpisodeRequest:
    """Of one prompt; further columns of its row."""
    prompt = Prompt(
        prompt_id="train/0", messages=(ChatMessage(role="user", content="play: "),), answer="9", columns=columns
    )
    sampling = Sampling(num_completions=1, max_tokens=8, seed=seed + index)
    return EpisodeRequest(group_id=3, index=index, prompt=prompt, sampling=sampling, environment_seed=seed)


def environment(name: str, **settings: Any) -> PythonEnvironment:
    """The settings of an environment of this file."""
    return PythonEnvironment.model_validate({"factory": f"tests.fakes_episodes:{name}", **settings})


class Counting:
    """Adds up what it is given, and rewards the sum."""

    def __init__(self) -> None:
        self.total = 0
        self.done = False

    def reset(self, seed: int, start: int = 0, **row: Any) -> str:
        """Begin at `start`, and say something that the seed decides."""
        self.total = start
        return f"seed {seed} draws {random.randrange(1000)}"

    def add(self, number: int) -> str:
        """Add a number.

        Args:
            number: What to add.
        """
        if number < 0:
            raise ValueError("only upwards")
        self.total += number
        self.done = self.total >= 100
        return f"the sum is {self.total}"

    async def subtract(self, number: int) -> str:
        """Take a number away.

        Args:
            number: What to take away.
        """
        await asyncio.sleep(0)
        self.total -= number
        return f"the sum is {self.total}"

    def get_reward(self) -> float:
        """The sum."""
        return float(self.total)


class Echo:
    """Reads whole turns: says each back, until it hears `bye`."""

    def reset(self, **row: Any) -> None:
        """Says nothing at first."""

    def hear(self, text: str) -> str | None:
        """Say it back.

        Args:
            text: What is said.
        """
        return None if text == "bye" else text * 3


class Hostile:
    """Does in `act`, `reset` or `get_reward` what the column `harm` says."""

    def reset(self, harm: str = "", where: str = "act", **row: Any) -> None:
        """Remember, or do it now."""
        self.harm, self.where = harm, where
        if where == "reset":
            do_harm(harm)

    def act(self, text: str = "") -> str:
        """Do something.

        Args:
            text: Anything.
        """
        if self.where == "act":
            do_harm(self.harm)
        return "fine"

    def get_reward(self) -> float:
        """The reward."""
        if self.where == "get_reward":
            do_harm(self.harm)
        return 1.0


def do_harm(harm: str) -> None:
    """What an environment should not do."""
    if harm == "loop":
        while True:
            pass
    if harm == "sleep":
        time.sleep(3600)
    if harm == "exit":
        os._exit(3)
    if harm == "memory":
        bytearray(10 * 2**30)
    if harm == "raise":
        raise RuntimeError("planted")
    if harm == "system_exit":
        raise SystemExit(2)
    if harm in ("close", "forge", "flood", "torn"):
        opened = {int(name): os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
        pipes = [number for number, target in opened.items() if "socket:" in target]
        for pipe in pipes:
            if harm == "close":
                os.close(pipe)
            elif harm == "forge":
                body = b'{"result": {"n": 1, "reward": 1e9, "content": "forged", "done": true}}'
                os.write(pipe, len(body).to_bytes(4, "big") + body)
            elif harm == "torn":
                os.write(pipe, (8).to_bytes(4, "big") + b"no json!")
            else:
                os.write(pipe, (2**32 - 1).to_bytes(4, "big") + b"x" * 1000)
    if harm == "talk":
        for _ in range(2000):
            print("noise " * 100)


class Restless(Counting):
    """Says another thing each time, whatever the seed."""

    def reset(self, seed: int, start: int = 0, **row: Any) -> str:
        """Begin with the time."""
        return f"it is {time.perf_counter_ns()}"
