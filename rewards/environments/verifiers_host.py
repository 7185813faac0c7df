"""An environment worker of tasksets of verifiers, without Ray: each episode runs in a process of the Python that has
verifiers, forked from one that has imported it."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Any

from rayzero.rewards.environments.agent_host import AskingHost
from rayzero.services.schema.config.environment import VerifiersEnvironment
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed
from rayzero.services.schema.other_python import OtherPython
from rayzero.services.schema.temporary import own_folder

TARGET = "rayzero.rewards.environments.verifiers_work:episode_host"
VERSION = "0.4.0"
PRELOADED = (
    "verifiers.v1", "verifiers.v1.harnesses.null.harness", "verifiers.v1.runtimes.subprocess", "verifiers.v1.tasksets",
    "anyio._backends._asyncio", "httpcore", "mcp.server.mcpserver", "numpy.random", "openai.lib.streaming.chat",
    "openai.resources.chat", "openai.types.chat", "uvicorn",
)  # fmt: skip
"""Of which each episode would import a part, for seconds, if its process were not forked from one that has."""


class VerifiersHost(AskingHost):
    """Its processes are verifiers' own world: taskset, tools, interception and scoring."""

    settings: VerifiersEnvironment

    def __init__(self, settings: VerifiersEnvironment) -> None:
        """Cheap: see `ProcessHost`."""
        self.settings = settings
        self._folder = own_folder()
        self._other = OtherPython(settings.python, (os.getcwd(), *((settings.folder,) if settings.folder else ())))
        spec: dict[str, Any] = {
            "taskset": settings.taskset,
            "arguments": settings.arguments,
            "options": settings.options,
            "max_turns": settings.limits.turns,
            "folder": str(self._folder),
        }
        super().__init__(settings, TARGET, spec, [*PRELOADED, settings.module], self._other)

    async def start(self) -> None:
        """Look whether the taskset can be made at all.

        Raises:
            ActorStartError: the Python, verifiers in it, or the taskset is not there; names what is missing.
        """
        if fault := await asyncio.to_thread(self._other.fault, "verifiers", VERSION):
            await self.close()
            raise ActorStartError(f"python: {fault}")
        try:
            (await self.process()).kill()
        except EnvironmentFailed as error:
            await self.close()
            raise ActorStartError(
                f"the taskset {self.settings.taskset} cannot be used: {error}; its module is looked for among what "
                f"{self.settings.python} has installed, in the current directory and in environment.folder"
            ) from None

    async def close(self) -> None:
        """End every process, and remove what they left."""
        await super().close()
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
