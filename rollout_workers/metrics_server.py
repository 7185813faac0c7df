"""Serves the figures that vLLM keeps of its engine (`vllm:*`) for Prometheus, from the rollout worker's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import disable_created_metrics, make_wsgi_app


class _Server(ThreadingMixIn, WSGIServer):
    """A scrape that hangs holds up no other, nor the end of the process."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    """A line a scrape would fill the worker's log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve_metrics(host: str) -> str:
    """Listen on a free port of `host`, in a thread of its own; returns `host:port`.

    Figures of an engine alone, no text of any prompt: that is why it asks for no token.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    server = make_server(host, 0, _plain(make_wsgi_app()), server_class=_Server, handler_class=_Silent)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return f"{host}:{server.server_port}"


def _plain(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Always Prometheus' plain format: in OpenMetrics the library writes `vllm_` for `vllm:`, which no dashboard of
    vLLM's knows."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ.pop("HTTP_ACCEPT", None)
        return app(environ, start_response)

    return answer
