"""Serves the API within the driver's own event loop, and says in the run directory where."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from rayzero.services.observe.api.app import build_app
from rayzero.services.observe.api.connections import Connection, OwnConnection
from rayzero.services.observe.api.guard import Guard
from rayzero.services.observe.api.run_view import RunView
from rayzero.services.schema.addresses import family_of, host_port
from rayzero.services.schema.config.observe import ApiSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.store.api_file import ADDRESS_FILE, LiveRun

LAG_EVERY_S = 1.0
ALL_INTERFACES = frozenset({"0.0.0.0", "::"})


class _Server(uvicorn.Server):
    """uvicorn would take SIGINT and SIGTERM, with which the run saves and ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve(view: RunView) -> AsyncIterator[str]:
    """Serve while the block runs; gives the base URL.

    Raises:
        RecipeError: the port is taken; names another way.
    """
    settings = view.recipe.observe.api
    listener = _listen(settings)
    port = listener.getsockname()[1]
    host = settings.advertised_host or (socket.getfqdn() if settings.host in ALL_INTERFACES else settings.host)
    address = host_port(host, port)
    token, live = os.environ.get(settings.token_env), LiveRun.here(f"http://{address}")
    app: Any = Guard(build_app(view, address), token, live.run_id)
    config = uvicorn.Config(
        app,
        http=Connection if token else OwnConnection,
        proxy_headers=False,  # who asks is who is connected: a header can say anything
        server_header=False,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    lag = asyncio.create_task(_watch_lag(view))
    file = view.directory.file(ADDRESS_FILE)
    live.write(file)
    try:
        yield f"http://{address}"
    finally:
        file.unlink(missing_ok=True)
        server.should_exit = True
        lag.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, 5.0)
        await asyncio.gather(lag, return_exceptions=True)
        listener.close()


def _listen(settings: ApiSettings) -> socket.socket:
    listener: socket.socket | None = None
    try:
        listener = socket.socket(family_of(settings.host), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise RecipeError(
            f"observe.api: {host_port(settings.host, settings.port)} cannot be listened on ({error.strerror}): choose "
            "another observe.api.port (0: any that is free), or observe.api.enabled=false"
        ) from None
    listener.setblocking(False)
    return listener


async def _watch_lag(view: RunView) -> None:
    """How late a timer is says how long everything else in the driver had to wait."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        view.meters.on_loop_lag(max(0.0, loop.time() - due))
