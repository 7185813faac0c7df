"""The environment worker as a Ray actor: a shell around the host of the recipe's kind.

Async, so that many episodes run side by side in one actor: nothing here computes, their processes do.
"""

from __future__ import annotations

from rayzero.rewards.environments.hosts import host_of
from rayzero.services.schema.config.environment import AnyEnvironment
from rayzero.services.schema.episodes import EpisodeRecord, EpisodeRequest
from rayzero.services.schema.interfaces import SessionHost


class EnvironmentActor:
    """Spawned by services/run/placement.py with `ray.remote(EnvironmentActor).options(num_cpus=…)`."""

    def __init__(self, settings: AnyEnvironment) -> None:
        """Cheap: processes come with `start`."""
        self._host = host_of(settings)

    async def start(self) -> None:
        """Make one environment, or look for the agent. Raises ActorStartError for what can never work."""
        await self._host.start()

    async def run_episode(self, request: EpisodeRequest, engine: SessionHost) -> EpisodeRecord:
        """Drive one episode at an engine. Cancelling the call kills its process."""
        return await self._host.run_episode(request, engine)

    async def counts(self) -> dict[str, int]:
        """Episodes so far, by their end."""
        return dict(self._host.counts)

    async def shutdown(self) -> None:
        """End every process."""
        await self._host.close()
