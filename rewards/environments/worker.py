"""An environment worker without Ray: makes the environment of each episode in a process of its own, and drives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rayzero.rewards.children.child import ForkServer
from rayzero.rewards.environments.episode import Episode
from rayzero.rewards.environments.episode_process import TARGET, EpisodeProcess
from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.programs import Programs
from rayzero.rewards.environments.session import Session
from rayzero.rewards.environments.tools import BUILT_IN
from rayzero.rewards.environments.work import HostSpec
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome, EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost

DESCRIBE_S = 120.0
"""For the tools' schemas: it imports transformers."""


class EnvironmentHost:
    """Runs episodes side by side, as many as it is given."""

    def __init__(self, settings: PythonEnvironment) -> None:
        """Cheap: `start` forks the server that episodes' processes come from."""
        self.settings = settings
        self.counts: Counter[str] = Counter()
        """Episodes by their end."""
        self.tools: tuple[Mapping[str, Any], ...] = ()
        """The JSON schemas that the model's template gets; none where each turn goes to the environment whole."""
        self.has_reward = False
        self.programs = Programs(settings.sandbox, settings.limits.step_s) if "python" in settings.tools else None
        self._server: ForkServer | None = None
        self._spec = HostSpec(
            factory=settings.factory,
            arguments=settings.arguments,
            tools=settings.tools,
            observation_chars=settings.limits.observation_chars,
        )

    async def start(self) -> None:
        """Make one environment and ask it for its tools.

        Raises:
            ActorStartError: it cannot be made, or its tools cannot be described; names what is missing.
        """
        what = self.settings.factory or ", ".join(self.settings.tools)
        try:
            process = await self.process()
            try:
                reads_calls = self.settings.tool_parser != "text"
                found = await process.ask_in("describe", DESCRIBE_S, with_schemas=reads_calls)
            finally:
                process.kill()
        except EnvironmentFailed as error:
            await self.close()
            raise ActorStartError(f"the environment {what} cannot be used: {error}") from None
        self.has_reward = found.get("has_reward") is True
        if self.settings.tool_parser != "text":
            self.tools = tuple(found["tools"])
        elif len(found["methods"]) != 1:
            await self.close()
            raise ActorStartError(
                f"the environment {what} has {len(found['methods'])} methods besides reset and get_reward "
                f"({', '.join(found['methods']) or 'none'}), and tool_parser: text gives each turn to the only one: "
                "leave one public, or choose another tool_parser"
            )
        if self.programs is not None:
            await self.programs.start()

    async def process(self) -> EpisodeProcess:
        """The process of a new episode, its environment made.

        Raises:
            EnvironmentFailed: it could not be made.
        """
        settings = self.settings
        if self._server is None or not self._server.alive:
            names = [settings.factory or "", *(BUILT_IN.get(name, name) for name in settings.tools)]
            modules = dict.fromkeys(name.partition(":")[0] for name in names if name)
            preload = [TARGET.partition(":")[0], *(modules if settings.preload else ())]
            self._server = ForkServer(TARGET, preload, "", False, settings.environment)
        return await EpisodeProcess.start(self._server, self._spec, settings.memory_bytes, settings.limits.start_s)

    async def run_episode(self, request: EpisodeRequest, engine: SessionHost) -> EpisodeRecord:
        """See `EnvironmentWorker.run_episode`."""
        request = replace(
            request,
            tools=self.tools,
            tool_parser=self.settings.tool_parser,
            max_tokens=self.settings.limits.episode_tokens,
        )
        try:
            process = await self.process()
        except EnvironmentFailed as error:
            self.counts[EpisodeEnd.ENVIRONMENT_ERROR] += 1
            return await unmade(request, engine, str(error))
        environment = LiveEnvironment(process=process, settings=self.settings, programs=self.programs)
        try:
            record = await Episode(request, engine, environment, self.settings).run()
        finally:
            environment.kill()
        self.counts[str(record.completion.end)] += 1
        return record

    async def close(self) -> None:
        """End every process."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()
        if self.programs is not None:
            await self.programs.close()


async def unmade(request: EpisodeRequest, engine: SessionHost, reason: str) -> EpisodeRecord:
    """The record of an episode that could not begin: its prompt, and nothing said."""
    record = await (await Session.open(engine, request)).close()
    outcome = EpisodeOutcome(end=EpisodeEnd.ENVIRONMENT_ERROR, reason=reason)
    completion = replace(record.completion, end=EpisodeEnd.ENVIRONMENT_ERROR, outcome=outcome)
    return replace(record, completion=completion)
