"""The process of one episode, seen from its worker: steps that end in time, and replies that are not believed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pprint
import signal
from collections.abc import Mapping
from typing import Any

from rayzero.rewards.children.child import Child, ChildFailure, ForkServer
from rayzero.rewards.children.pool import pickled
from rayzero.rewards.environments.agent_work import AgentSpec
from rayzero.rewards.environments.work import HostSpec
from rayzero.rewards.sandbox.processes import descendants
from rayzero.services.schema.errors import EnvironmentFailed

TARGET = "rayzero.rewards.environments.work:episode_host"


class EpisodeProcess:
    """A child for one episode alone. What the user's code does to it, its memory or its pipe costs that episode."""

    def __init__(self, server: ForkServer, child: Child) -> None:
        """Of a child that has said hello: see `start`."""
        self._server, self._child = server, child
        self._number = 0
        self.is_alive = True

    @classmethod
    async def start(
        cls, server: ForkServer, spec: HostSpec | AgentSpec | Mapping[str, Any], memory_bytes: int, deadline_s: float
    ) -> EpisodeProcess:
        """Fork it, and let it make the environment.

        Raises:
            EnvironmentFailed: it could not be made, or not in time.
        """
        try:
            hello = pickled((spec, memory_bytes))
            child = await server.fork()
        except ChildFailure as failure:
            raise EnvironmentFailed(failure.text) from None
        try:
            async with asyncio.timeout(deadline_s):
                answer = await child.exchange(hello)
            if "error" in answer:
                raise EnvironmentFailed(f"it could not be made: {answer['error']}")
            child.pid = int(answer["pid"])
        except BaseException as error:
            child.hang_up()
            if isinstance(error, TimeoutError):
                raise EnvironmentFailed(f"it was not made within {deadline_s:g} s") from None
            if isinstance(error, EOFError | OSError | ValueError | KeyError | TypeError | RecursionError):
                raise EnvironmentFailed("its process died while it was made") from None
            raise
        server.greet(child.pid)
        return cls(server, child)

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One step. A caller who cancels it, for a deadline say, must `kill` the process: its answer may still come.

        Raises:
            EnvironmentFailed: the process died, or what it says is no answer to this.
        """
        if not self.is_alive:
            raise EnvironmentFailed("its process has ended")
        self._number += 1
        try:
            reply = await self._child.exchange(pickled({"n": self._number, "op": op, **fields}))
        except ChildFailure as failure:
            raise EnvironmentFailed(failure.text) from None
        except (EOFError, OSError) as error:
            self.kill()
            raise EnvironmentFailed(await self._epitaph(op, error)) from None
        except (ValueError, RecursionError):
            self.kill()
            raise EnvironmentFailed(f"its process garbled the answer to {op}") from None
        if isinstance(reply, dict) and "error" in reply:
            raise EnvironmentFailed(f"{op} raised {str(reply['error'])[:500]}")
        result = reply.get("result") if isinstance(reply, dict) else None
        # User code can write to its own end of the pipe: an answer that was forged comes before the one that it forges.
        if not isinstance(result, dict) or result.get("n") != self._number:
            self.kill()
            raise EnvironmentFailed(f"its process answered {op} with something else: {pprint.saferepr(result)[:200]}")
        return result

    async def ask_in(self, op: str, deadline_s: float, **fields: Any) -> dict[str, Any]:
        """One step that must end in time; else the process is killed.

        Raises:
            EnvironmentFailed: it did not, or as `ask`.
        """
        try:
            async with asyncio.timeout(deadline_s):
                return await self.ask(op, **fields)
        except TimeoutError:
            self.kill()
            raise EnvironmentFailed(f"{op} did not return within {deadline_s:g} s") from None

    def kill(self) -> None:
        """End it, with all that it started."""
        if self.is_alive:
            self.is_alive = False
            self._end_strays()
            self._server.kill(self._child.pid)
            self._child.hang_up()

    def _end_strays(self) -> None:
        """What left the process's group, as a tool's server does that was started in a session of its own."""
        own = self._child.pid
        for pid in descendants(own, self._server.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != own:
                    os.kill(pid, signal.SIGKILL)

    async def _epitaph(self, op: str, error: Exception) -> str:
        if isinstance(error, OSError) and error.errno and error.strerror and "bytes" in error.strerror:
            return f"{op}: {error.strerror}"
        status = await self._server.exit_status(self._child.pid)
        how = "went away" if status is None else f"ended with status {status}" if status >= 0 else "was killed"
        return f"its process {how} in {op}"
