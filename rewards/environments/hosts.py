"""Which host runs a recipe's environment, by its kind."""

from __future__ import annotations

from rayzero.rewards.environments.agent_host import AgentHost
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.schema.config.environment import AgentEnvironment, AnyEnvironment, TextArenaEnvironment


def host_of(settings: AnyEnvironment) -> EnvironmentHost | AgentHost:
    """Cheap: processes come with its `start`."""
    if isinstance(settings, AgentEnvironment):
        return AgentHost(settings)
    return EnvironmentHost(settings.as_class() if isinstance(settings, TextArenaEnvironment) else settings)
