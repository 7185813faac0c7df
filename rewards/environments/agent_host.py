"""An environment worker of agents, without Ray: starts the agent of each episode in a process of its own."""

from __future__ import annotations

from dataclasses import replace

from rayzero.rewards.environments.agent_episode import AgentEpisode
from rayzero.rewards.environments.agent_work import AgentSpec
from rayzero.rewards.environments.episode_process import EpisodeProcess
from rayzero.rewards.environments.process_host import ProcessHost
from rayzero.services.schema.config.environment import AgentEnvironment, VerifiersEnvironment
from rayzero.services.schema.episodes import EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost

TARGET = "rayzero.rewards.environments.agent_work:agent_host"


class AskingHost(ProcessHost):
    """Of programs that ask the model by themselves: the limits of turns and tokens are their session's to keep."""

    settings: AgentEnvironment | VerifiersEnvironment

    def completed(self, request: EpisodeRequest) -> EpisodeRequest:
        """With all limits but those of time: the agent asks by itself, so the session refuses."""
        limits = self.settings.limits
        return replace(
            request,
            tool_parser=self.settings.tool_parser,
            max_tokens=limits.episode_tokens,
            max_turns=limits.turns,
            max_tool_calls=limits.tool_calls,
        )

    async def drive(self, request: EpisodeRequest, engine: SessionHost, process: EpisodeProcess) -> EpisodeRecord:
        """See `ProcessHost`."""
        return await AgentEpisode(request, engine, process, self.settings.limits).run()


class AgentHost(AskingHost):
    """Its processes are their agents' parents."""

    settings: AgentEnvironment

    def __init__(self, settings: AgentEnvironment) -> None:
        """Cheap: see `ProcessHost`."""
        self.settings = settings
        spec = AgentSpec(function=settings.function, arguments=settings.arguments, command=settings.command)
        super().__init__(settings, TARGET, spec, [settings.function.partition(":")[0]] if settings.function else [])

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
