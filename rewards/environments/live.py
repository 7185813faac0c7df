"""The environment of one episode, as what drives the episode sees it: reset, answer, reward."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from rayzero.rewards.environments.episode_process import EpisodeProcess
from rayzero.rewards.environments.observations import shown
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRequest, ToolCall
from rayzero.services.schema.errors import EnvironmentFailed
from rayzero.services.schema.messages import ChatMessage
from rayzero.services.schema.plain import is_figure, is_finite

FIRST_OBSERVATION_CHARS = 1_000_000
"""Of what reset appends to the prompt: it is cut nowhere, and a prompt that is too long is dropped as any other."""


class ProgramRunner(Protocol):
    """Runs what the tool `python` is given."""

    async def run(self, code: str) -> tuple[str, bool]:
        """What it printed, and whether it failed."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What an environment says to a turn."""

    messages: tuple[ChatMessage, ...] = ()
    end: EpisodeEnd | None = None
    """The episode is over for this reason; None: the model speaks again."""
    num_calls: int = 0
    num_failed: int = 0
    """Calls that raised, or could not be read."""
    is_malformed: bool = False
    """One of the calls could not be read."""
    reward: float | None = None
    """Of this turn alone; None: the environment says nothing of it."""


@dataclass(slots=True)
class LiveEnvironment:
    """Asks the episode's process, and the sandbox where the model runs a program."""

    process: EpisodeProcess
    settings: PythonEnvironment
    programs: ProgramRunner | None = None
    """None: `python` is no tool here."""
    num_calls: int = 0
    _done: bool = field(default=False)
    _turn_reward: float | None = field(default=None)

    async def reset(self, request: EpisodeRequest) -> str | None:
        """What is appended to the prompt's last message.

        Raises:
            EnvironmentFailed: it raised, died or took too long.
        """
        row, seed = row_of(request), request.environment_seed
        reply = await self.process.ask_in("reset", self.settings.limits.start_s, row=row, seed=seed)
        observation = reply.get("observation")
        if observation is not None and not isinstance(observation, str):
            raise EnvironmentFailed("its process answered reset with something else")
        return None if observation is None else shown(observation, FIRST_OBSERVATION_CHARS)

    async def answer(self, message: ChatMessage) -> Answer:
        """What it says to a turn: in tool messages, or to the whole text of the turn. One that takes longer than a step
        may is killed.

        Raises:
            EnvironmentFailed: it died.
        """
        self._turn_reward = None
        try:
            async with asyncio.timeout(self.settings.limits.step_s):
                is_text = self.settings.tool_parser == "text"
                answer = await (self._say(message.content) if is_text else self._call(message.tool_calls))
                return replace(answer, reward=self._turn_reward)
        except TimeoutError:
            self.process.kill()
            return Answer(end=EpisodeEnd.STEP_DEADLINE)
        except asyncio.CancelledError:
            self.process.kill()  # its answer may still come, and would be taken for the next one's
            raise

    async def reward(self) -> float | None:
        """What it gives for the episode; None where it gives nothing.

        Raises:
            EnvironmentFailed: get_reward raised, died or took too long.
        """
        value = (await self.process.ask_in("get_reward", self.settings.limits.step_s)).get("reward")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
            raise EnvironmentFailed(f"get_reward returned {value!r:.40}: return a finite number, or None")
        return float(value)

    def kill(self) -> None:
        """End its process."""
        self.process.kill()

    async def _say(self, text: str) -> Answer:
        reply = await self.process.ask("say", text=text)
        content = self._read(reply)
        self.num_calls += 1
        if content is None:
            return Answer(end=EpisodeEnd.ANSWERED, num_calls=1)
        return Answer(
            messages=(ChatMessage(role="user", content=content),),
            end=EpisodeEnd.ANSWERED if self._done else None,
            num_calls=1,
            num_failed=int(reply.get("failed") is True),
        )

    async def _call(self, calls: Sequence[ToolCall]) -> Answer:
        if not calls:
            return Answer(end=EpisodeEnd.ANSWERED)
        is_malformed = any(call.error for call in calls)
        if is_malformed and self.settings.malformed == "end":
            return Answer(end=EpisodeEnd.PARSE_ERROR, num_failed=1, is_malformed=True)
        messages: list[ChatMessage] = []
        num_failed = 0
        end = None
        for call in calls:
            if self.num_calls >= self.settings.limits.tool_calls:
                end = EpisodeEnd.MAX_TOOL_CALLS
                break
            self.num_calls += 1
            content, failed = await self._result(call)
            num_failed += failed
            messages.append(ChatMessage(role="tool", content=content, tool_call_id=call.call_id))
        if self._done:
            end = EpisodeEnd.ANSWERED
        return Answer(
            messages=tuple(messages),
            end=end,
            num_calls=len(messages),
            num_failed=num_failed,
            is_malformed=is_malformed,
        )

    async def _result(self, call: ToolCall) -> tuple[str, bool]:
        """A tool message's text, and whether the call failed."""
        limit = self.settings.limits.observation_chars
        if call.error:
            return shown(str({"error": call.error}), limit), True
        if call.name == "python" and self.programs is not None:
            code = call.arguments.get("code")
            if set(call.arguments) != {"code"} or not isinstance(code, str):
                return str({"error": "python takes one argument, code, a text"}), True
            printed, failed = await self.programs.run(code)
            return shown(printed, limit), failed
        reply = await self.process.ask("call", name=call.name, arguments=dict(call.arguments))
        content = self._read(reply)
        return content or "", reply.get("failed") is True

    def _read(self, reply: dict[str, Any]) -> str | None:
        content = reply.get("content")
        if content is not None and not isinstance(content, str):
            raise EnvironmentFailed("its process answered with something that is no text")
        self._done = self._done or reply.get("done") is True
        reward = reply.get("reward")
        if reward is not None and not is_figure(reward):
            raise EnvironmentFailed(f"turn_reward is {reward!r:.40}: set a finite number, or None")
        if reward is not None:
            self._turn_reward = float(reward) + (self._turn_reward or 0.0)
        return None if content is None else shown(content, self.settings.limits.observation_chars + 64)


def row_of(request: EpisodeRequest) -> dict[str, Any]:
    """What an environment is given of a row: its columns, the prompt and the answer by name."""
    prompt = request.prompt
    return {
        "prompt": [{"role": message.role, "content": message.content} for message in prompt.messages],
        "answer": prompt.answer,
        **prompt.columns,
    }
