"""Which host runs a recipe's environment, by its kind."""

from __future__ import annotations

from rayzero.rewards.environments.agent_host import AgentHost
from rayzero.rewards.environments.openenv_host import OpenEnvHost
from rayzero.rewards.environments.verifiers_host import VerifiersHost
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.schema.config.environment import (
    AgentEnvironment,
    AnyEnvironment,
    OpenEnvEnvironment,
    TextArenaEnvironment,
    VerifiersEnvironment,
)


def host_of(settings: AnyEnvironment) -> EnvironmentHost | AgentHost | VerifiersHost:
    """Cheap: processes come with its `start`."""
    if isinstance(settings, AgentEnvironment):
        return AgentHost(settings)
    if isinstance(settings, OpenEnvEnvironment):
        return OpenEnvHost(settings)
    if isinstance(settings, VerifiersEnvironment):
        return VerifiersHost(settings)
    return EnvironmentHost(settings.as_class() if isinstance(settings, TextArenaEnvironment) else settings)
