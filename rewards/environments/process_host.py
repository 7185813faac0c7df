"""What the environment workers of every kind share: a process an episode, from one fork server, and a count of ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rayzero.rewards.children.child import ForkServer
from rayzero.rewards.environments.agent_work import AgentSpec
from rayzero.rewards.environments.episode_process import EpisodeProcess
from rayzero.rewards.environments.session import Session
from rayzero.rewards.environments.work import HostSpec
from rayzero.services.schema.config.environment import AgentEnvironment, PythonEnvironment, VerifiersEnvironment
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome, EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import EnvironmentFailed
from rayzero.services.schema.interfaces import SessionHost
from rayzero.services.schema.other_python import OtherPython


class ProcessHost(ABC):
    """Runs episodes side by side, as many as it is given."""

    def __init__(
        self,
        settings: PythonEnvironment | AgentEnvironment | VerifiersEnvironment,
        target: str,
        spec: HostSpec | AgentSpec | Mapping[str, Any],
        modules: Iterable[str],
        python: OtherPython | None = None,
    ) -> None:
        """Cheap: the server that episodes' processes are forked from comes with the first. They run `target` on `spec`,
        plain data for another `python`; `modules` are a user's, imported once where the recipe has them preloaded."""
        self.counts: Counter[str] = Counter()
        """Episodes by their end."""
        self._base, self._target, self._spec, self._python = settings, target, spec, python
        self._preload = [target.partition(":")[0], *(dict.fromkeys(modules) if settings.preload else ())]
        self._server: ForkServer | None = None

    async def process(self) -> EpisodeProcess:
        """The process of a new episode.

        Raises:
            EnvironmentFailed: what it is to run cannot be made there.
        """
        settings, server = self._base, self._server
        if server is None or not server.alive:
            try:
                new = ForkServer(self._target, self._preload, "", False, settings.environment, self._python)
            except OSError as error:
                raise EnvironmentFailed(f"its Python cannot be started: {error}") from None
            dead, server, self._server = server, new, new
            if dead is not None:
                await dead.close()  # its socket and its place in the table of processes
        return await EpisodeProcess.start(server, self._spec, settings.memory_bytes, settings.limits.start_s)

    async def run_episode(self, request: EpisodeRequest, engine: SessionHost) -> EpisodeRecord:
        """See `EnvironmentWorker.run_episode`."""
        request = self.completed(request)
        try:
            process = await self.process()
        except EnvironmentFailed as error:
            record = await _unmade(request, engine, str(error))
        else:
            try:
                record = await self.drive(request, engine, process)
            finally:
                process.kill()
        self.counts[str(record.completion.end)] += 1
        return record

    @abstractmethod
    async def start(self) -> None:
        """Look whether it can be used at all. Raises ActorStartError, with what is missing."""

    @abstractmethod
    def completed(self, request: EpisodeRequest) -> EpisodeRequest:
        """The request with what the recipe says of every episode: tools, limits that the session keeps."""

    @abstractmethod
    async def drive(self, request: EpisodeRequest, engine: SessionHost, process: EpisodeProcess) -> EpisodeRecord:
        """One episode, from its session to its record. The process is ended by the caller."""

    async def close(self) -> None:
        """End every process."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()


async def _unmade(request: EpisodeRequest, engine: SessionHost, reason: str) -> EpisodeRecord:
    """The record of an episode that could not begin: its prompt, and nothing said."""
    record = await (await Session.open(engine, request)).close()
    outcome = EpisodeOutcome(end=EpisodeEnd.ENVIRONMENT_ERROR, reason=reason)
    completion = replace(record.completion, end=EpisodeEnd.ENVIRONMENT_ERROR, outcome=outcome)
    return replace(record, completion=completion)
