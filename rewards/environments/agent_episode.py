"""Drives one episode of an agent: starts it, gives it the session's address, and waits for its end, or ends it.

    start the process ─► open the session ─► the agent asks, calls its tools, asks … ─► reward ─► close: the record

Tokens are the session's alone: an agent can neither forge nor lose one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rayzero.rewards.environments.episode_process import EpisodeProcess
from rayzero.rewards.environments.live import row_of
from rayzero.rewards.environments.session import Session
from rayzero.services.schema.config.environment import EpisodeLimits
from rayzero.services.schema.episodes import (
    POLICY_MODEL,
    EpisodeEnd,
    EpisodeOutcome,
    EpisodeRecord,
    EpisodeRequest,
    Turn,
)
from rayzero.services.schema.errors import EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost
from rayzero.services.schema.messages import Completion
from rayzero.services.schema.plain import is_figure


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentEnd:
    """How an agent ended."""

    end: EpisodeEnd | None = None
    """Why it was ended, or what limit of its own it met; None: it ended by itself."""
    reward: float | None = None
    failure: str = ""
    """What was wrong with it, in words."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures of its own."""


OWN_LIMITS = (EpisodeEnd.MAX_TURNS, EpisodeEnd.MAX_TOKENS, EpisodeEnd.EPISODE_DEADLINE)
"""Ends that what runs an agent may name: it met a limit that was set in it, and was judged all the same."""


@dataclass(frozen=True, slots=True)
class AgentEpisode:
    """One episode, from its session to its record."""

    request: EpisodeRequest
    engine: SessionHost
    process: EpisodeProcess
    limits: EpisodeLimits

    async def run(self) -> EpisodeRecord:
        """All of it. The process is left to the caller.

        Raises:
            EngineFailed: the engine did not do its part.
            PromptRefused: the model cannot be given the prompt.
        """
        session = await Session.open(self.engine, self.request)
        began = time.monotonic()
        ended = await self._ended(session, await session.address())
        self.process.kill()  # before the session's end: it may be calling, and would only hear that it is too late
        record = await session.close()
        return _judged(record, ended, time.monotonic() - began)

    async def _ended(self, session: Session, address: str) -> AgentEnd:
        """How it ended, by itself or for a limit."""
        limits, request = self.limits, self.request
        policy = {
            "base_url": f"http://{address}/sessions/{session.name}/v1",
            "api_key": session.name,
            "model": POLICY_MODEL,
        }
        seed = request.environment_seed
        row = {"seed": seed, **row_of(request)}
        label = f"[group {request.group_id} episode {request.index}] "
        running = asyncio.create_task(self.process.ask("run", row=row, seed=seed, policy=policy, label=label))
        watching = asyncio.create_task(session.watch(limits.start_s, limits.step_s))
        tasks: tuple[asyncio.Task[Any], ...] = (running, watching)
        try:
            await asyncio.wait(tasks, timeout=limits.episode_s, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return _read(running.result())
            if not watching.done():
                return AgentEnd(end=EpisodeEnd.EPISODE_DEADLINE, failure=f"it took longer than {limits.episode_s:g} s")
            return self._strayed(watching.result())
        except EnvironmentFailed as error:
            return AgentEnd(end=EpisodeEnd.ENVIRONMENT_ERROR, failure=str(error))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _strayed(self, end: EpisodeEnd) -> AgentEnd:
        if end is EpisodeEnd.ENVIRONMENT_ERROR:
            failure = f"it did not ask the model for anything within {self.limits.start_s:g} s"
        elif end is EpisodeEnd.STEP_DEADLINE:
            failure = f"it neither asked the model for a turn nor ended within {self.limits.step_s:g} s"
        else:
            failure = ""
        return AgentEnd(end=end, failure=failure)


def _read(reply: dict[str, object]) -> AgentEnd:
    reward, failure, end = reply.get("reward"), reply.get("failure"), reply.get("end")
    metrics = reply.get("metrics", {})
    if not (reward is None or is_figure(reward)) or not isinstance(failure, str) or not isinstance(metrics, Mapping):
        return AgentEnd(end=EpisodeEnd.ENVIRONMENT_ERROR, failure="its process answered with something else")
    return AgentEnd(
        end=next((own for own in OWN_LIMITS if own == end), None),
        reward=None if reward is None else float(reward),
        failure=failure,
        metrics={str(name): float(value) for name, value in metrics.items() if is_figure(value)},
    )


def _judged(record: EpisodeRecord, ended: AgentEnd, seconds: float) -> EpisodeRecord:
    """The record with how it went. A limit that the session met is why an agent ended, or raised."""
    made = record.completion
    turns = list(_turns_of(made))
    end, reason = ended.end or made.end, ended.failure
    if end is None and not turns and not reason:
        reason = "it ended without asking the model for a turn"
    if end is None:
        end = EpisodeEnd.ENVIRONMENT_ERROR if reason else EpisodeEnd.ANSWERED
    waited = [turn.environment_s for turn in turns]
    if waited:  # before the first turn and after the last: the agent's, too
        waited[-1] += max(0.0, seconds - sum(waited) - sum(turn.engine_s for turn in turns))
    calls = [call for turn in turns for call in turn.tool_calls]
    outcome = EpisodeOutcome(
        end=end,
        reward=ended.reward,
        messages=record.messages,
        environment_s=tuple(waited),
        metrics={
            **ended.metrics,
            "tool_calls": float(len(calls)),
            "tool_failures": float(sum(bool(call.error) for call in calls)),
        },
        reason=reason,
    )
    return replace(record, completion=replace(made, end=end, outcome=outcome))


def _turns_of(completion: Completion) -> Iterator[Turn]:
    """All that were sampled, branch by branch."""
    yield from completion.turns
    for branch in completion.branches:
        yield from branch.completion.turns
