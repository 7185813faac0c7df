"""Serves the figures that vLLM keeps of its engine (`vllm:*`) for Prometheus, from the rollout worker's own process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import disable_created_metrics, make_wsgi_app

from rayzero.services.schema.addresses import family_of, host_port


class _MetricsServer(ThreadingMixIn, WSGIServer):
    """A scrape that hangs holds up no other, nor the end of the process."""

    daemon_threads = True


class _IPv6Server(_MetricsServer):
    """The same; `socketserver` takes the family from the class."""

    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    """A line a scrape would fill the worker's log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve_metrics(host: str) -> str:
    """Listen on a free port of `host`, in a thread of its own; returns `host:port`.

    Figures of an engine alone, no text of any prompt: that is why it asks for no token.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    kind = _IPv6Server if family_of(host) is socket.AF_INET6 else _MetricsServer
    server = make_server(host, 0, _plain(make_wsgi_app()), server_class=kind, handler_class=_Silent)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return host_port(host, server.server_port)


def _plain(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Always Prometheus' plain format: in OpenMetrics the library writes `vllm_` for `vllm:`, which no dashboard of
    vLLM's knows."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ.pop("HTTP_ACCEPT", None)
        return app(environ, start_response)

    return answer
