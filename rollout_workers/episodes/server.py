"""Serves the endpoint of an engine's episodes within the worker's own event loop, on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from rayzero.rollout_workers.episodes.endpoint import EpisodeEndpoint
from rayzero.services.schema.addresses import family_of, host_port
from rayzero.services.schema.connections import BoundedConnection

MAX_CONNECTIONS = 2048
"""Agents' of all of an engine's episodes; fewer where the process may open few files."""
IDLE_S = 60.0
"""Until a request's head is there whole, and between two requests: an agent's tools take their time."""


class EndpointConnection(BoundedConnection):
    """One agent's. All may come from one address: the environment workers'."""

    max_connections = max_of_one_peer = MAX_CONNECTIONS
    request_s = IDLE_S


class _EndpointServer(uvicorn.Server):
    """uvicorn would take SIGINT and SIGTERM, with which the worker ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class EndpointServer:
    """From `start` to `stop`."""

    def __init__(self, app: EpisodeEndpoint) -> None:
        self._app = app
        self._server: _EndpointServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._address = ""

    async def start(self, host: str) -> str:
        """Listen on a free port of `host`; returns `host:port`, the same one at every call."""
        if self._address:
            return self._address
        listener = socket.socket(family_of(host), socket.SOCK_STREAM)
        listener.bind((host, 0))
        listener.listen(512)
        listener.setblocking(False)
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        bound = MAX_CONNECTIONS if soft_limit < 0 else max(16, min(MAX_CONNECTIONS, soft_limit // 2))
        kind: Any = type("Bounded", (EndpointConnection,), {"max_connections": bound, "max_of_one_peer": bound})
        config = uvicorn.Config(
            self._app,
            http=kind,
            proxy_headers=False,
            server_header=False,
            log_config=None,
            access_log=False,  # a path holds an episode's token
            lifespan="off",
            timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=1,
        )
        self._server = _EndpointServer(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        self._address = host_port(host, listener.getsockname()[1])
        return self._address

    async def stop(self) -> None:
        """Hang up on all clients; does nothing where it never began."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving, 5.0)
        self._server = self._serving = None
