"""An environment worker of agents, without Ray: starts the agent of each episode in a process of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from rayzero.rewards.children.child import ForkServer
from rayzero.rewards.environments.agent_episode import AgentEpisode
from rayzero.rewards.environments.agent_work import AgentSpec
from rayzero.rewards.environments.episode_process import EpisodeProcess
from rayzero.rewards.environments.worker import unmade
from rayzero.services.schema.config.environment import AgentEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost

TARGET = "rayzero.rewards.environments.agent_work:agent_host"


class AgentHost:
    """Runs episodes side by side, as many as it is given."""

    def __init__(self, settings: AgentEnvironment) -> None:
        """Cheap: `start` forks the server that episodes' processes come from."""
        self.settings = settings
        self.counts: Counter[str] = Counter()
        """Episodes by their end."""
        self._server: ForkServer | None = None
        self._spec = AgentSpec(function=settings.function, arguments=settings.arguments, command=settings.command)

    async def start(self) -> None:
        """Look whether the agent can be started at all.

        Raises:
            ActorStartError: there is no such function or program; names what is missing.
        """
        try:
            (await self.process()).kill()
        except EnvironmentFailed as error:
            await self.close()
            what = self.settings.function or self.settings.command[0]
            raise ActorStartError(f"the agent {what} cannot be used: {error}") from None

    async def process(self) -> EpisodeProcess:
        """The process of a new episode, which will be its agent's parent.

        Raises:
            EnvironmentFailed: the agent could not be found.
        """
        settings = self.settings
        if self._server is None or not self._server.alive:
            module = (settings.function or "").partition(":")[0]
            preload = [TARGET.partition(":")[0], *([module] if module and settings.preload else [])]
            self._server = ForkServer(TARGET, preload, "", False, settings.environment)
        return await EpisodeProcess.start(self._server, self._spec, settings.memory_bytes, settings.limits.start_s)

    async def run_episode(self, request: EpisodeRequest, engine: SessionHost) -> EpisodeRecord:
        """See `EnvironmentWorker.run_episode`."""
        settings, limits = self.settings, self.settings.limits
        request = replace(
            request,
            tool_parser=settings.tool_parser,
            max_tokens=limits.episode_tokens,
            max_turns=limits.turns,
            max_tool_calls=limits.tool_calls,
        )
        try:
            process = await self.process()
        except EnvironmentFailed as error:
            self.counts[EpisodeEnd.ENVIRONMENT_ERROR] += 1
            return await unmade(request, engine, str(error))
        try:
            record = await AgentEpisode(request, engine, process, limits).run()
        finally:
            process.kill()
        self.counts[str(record.completion.end)] += 1
        return record

    async def close(self) -> None:
        """End every process."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()
