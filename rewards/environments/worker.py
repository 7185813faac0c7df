"""An environment worker without Ray: makes the environment of each episode in a process of its own, and drives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rayzero.rewards.environments.episode import Episode
from rayzero.rewards.environments.episode_process import TARGET, EpisodeProcess
from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.process_host import ProcessHost
from rayzero.rewards.environments.programs import Programs
from rayzero.rewards.environments.tools import BUILT_IN
from rayzero.rewards.environments.work import HostSpec
from rayzero.services.schema.config.environment import PythonEnvironment
from rayzero.services.schema.episodes import EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost

DESCRIBE_S = 120.0
"""For the tools' schemas: it imports transformers."""


class EnvironmentHost(ProcessHost):
    """Its processes hold an environment each; the turns are taken here."""

    def __init__(self, settings: PythonEnvironment) -> None:
        """Cheap: see `ProcessHost`."""
        self.settings = settings
        self.name = settings.factory or ", ".join(settings.tools)
        """What messages call it."""
        self.tools: tuple[Mapping[str, Any], ...] = ()
        """The JSON schemas that the model's template gets; none where each turn goes to the environment whole."""
        self.has_reward = False
        self.programs = Programs(settings.sandbox, settings.limits.step_s) if "python" in settings.tools else None
        spec = HostSpec(
            factory=settings.factory,
            arguments=settings.arguments,
            tools=settings.tools,
            observation_chars=settings.limits.observation_chars,
        )
        names = [settings.factory or "", *(BUILT_IN.get(name, name) for name in settings.tools)]
        super().__init__(settings, TARGET, spec, [name.partition(":")[0] for name in names if name])

    async def start(self) -> None:
        """Make one environment and ask it for its tools.

        Raises:
            ActorStartError: it cannot be made, or its tools cannot be described; names what is missing.
        """
        what = self.name
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

    def completed(self, request: EpisodeRequest) -> EpisodeRequest:
        """With its tools and the tokens that the session counts; turns and calls are counted here."""
        limits = self.settings.limits
        return replace(
            request, tools=self.tools, tool_parser=self.settings.tool_parser, max_tokens=limits.episode_tokens
        )

    async def drive(self, request: EpisodeRequest, engine: SessionHost, process: EpisodeProcess) -> EpisodeRecord:
        """See `ProcessHost`."""
        environment = LiveEnvironment(process=process, settings=self.settings, programs=self.programs)
        return await Episode(request, engine, environment, self.settings).run()

    async def close(self) -> None:
        """End every process, and the sandbox of the tool `python`."""
        await super().close()
        if self.programs is not None:
            await self.programs.close()
