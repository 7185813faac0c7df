"""An environment worker of an OpenEnv server, without Ray: starts the server where the recipe has a command for it, and
plays each episode in a session of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

from rayzero.rewards.children.environment import without_secrets
from rayzero.rewards.environments.episode_process import EpisodeProcess
from rayzero.rewards.environments.work import HostSpec
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.schema.config.environment import OpenEnvEnvironment
from rayzero.services.schema.errors import EnvironmentFailed

LOOK_S = 0.1
_ENDS_WITH_ITS_WORKER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"


class OpenEnvHost(EnvironmentHost):
    """One server for all episodes of this worker, or one that is there already."""

    def __init__(self, settings: OpenEnvEnvironment) -> None:
        """Cheap: the server comes with the first episode."""
        super().__init__(settings.as_class(settings.url or ""))
        self.name = settings.url or " ".join(settings.command)
        self._command, self._variables = settings.command, settings.environment
        self._started: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._one_at_a_time = asyncio.Lock()

    async def process(self) -> EpisodeProcess:
        """See `ProcessHost`; a server that has ended is started anew."""
        if self._command:
            async with self._one_at_a_time:
                if not await self._is_up():
                    await self._serve()
        return await super().process()

    async def close(self) -> None:
        """End every process, and the server."""
        await super().close()
        await asyncio.to_thread(self._end)

    async def _is_up(self) -> bool:
        """A server that dies refuses connections before its process is gone."""
        if self._started is None or self._started.poll() is not None or not self._url:
            return False
        return not await asyncio.to_thread(_refuses, self._url)

    async def _serve(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            EnvironmentFailed: it cannot be started, or not in time.
        """
        self._end()
        port, limit_s = _free_port(), self.settings.limits.start_s
        command = [word.replace("{port}", str(port)) for word in self._command]
        if shutil.which(command[0]) is None:
            raise EnvironmentFailed(f"{command[0]}: no such program here ({os.getcwd()}), or not executable")
        own = [sys.executable, "-c", _ENDS_WITH_ITS_WORKER] if sys.platform == "linux" else []
        environment = {**without_secrets(os.environ, self._variables), "PORT": str(port)}
        try:
            self._started = subprocess.Popen(
                [*own, *command], stdin=subprocess.DEVNULL, stdout=2, env=environment, start_new_session=True
            )
        except OSError as error:
            raise EnvironmentFailed(f"the server {command[0]} cannot be started: {error}") from None
        url, give_up = f"http://127.0.0.1:{port}", time.monotonic() + limit_s
        while not await asyncio.to_thread(_answers, url):
            status = self._started.poll()
            if status is not None:
                raise EnvironmentFailed(f"the server {command[0]} ended with status {status} before it answered")
            if time.monotonic() > give_up:
                self._end()
                raise EnvironmentFailed(f"the server {command[0]} did not answer on port {port} within {limit_s:g} s")
            await asyncio.sleep(LOOK_S)
        assert isinstance(self._spec, HostSpec)
        self._url = url
        self._spec = replace(self._spec, arguments={**self._spec.arguments, "url": url})

    def _end(self) -> None:
        server, self._started, self._url = self._started, None, ""
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuses(url: str) -> bool:
    """Whether nothing listens there; one that is too busy to take a connection does."""
    try:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1.0):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def _answers(url: str) -> bool:
    """Whether a server speaks HTTP there, whatever it says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=5.0):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
