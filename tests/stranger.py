"""Another user of the machine, who asks a port everything there is to ask: `python -m tests.stranger PORT…`, as root.

Prints a JSON object: what each port said, by what it was asked. Everything is imported before the user is changed: the
interpreter's own files may be root's alone.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - imported by the first connection
import importlib
import json
import os
import pkgutil
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

NOBODY = 65534
PATIENCE_S = 2.5
GRPC_S = 60.0
"""For some hundred calls together, on a machine that is busy."""
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
NOISE = (b"\0" * 64, b"\xff" * 64)
SETTINGS = b"\4"
"""The kind of the first frame of a server that speaks HTTP/2."""
REQUESTS = (
    "GET /",
    "GET /metrics",
    "GET /healthz",
    "GET /api/healthz",
    "GET /api/local_raylet_healthz",
    "GET /api/version",
    "GET /api/job_agent/jobs/none/logs",
    "GET /api/jobs/",
    "GET /logs",
    "GET /v1/status",
    "GET /v1/samples",
    "GET /sd",
    "POST /api/job_agent/jobs/",
    "POST /get_or_create_runtime_env",
    "POST /v1/stop",
)


def ask(port: int) -> dict[str, str]:
    """`METHOD path` or a gRPC method -> status; `raw` -> how many bytes it says to noise."""
    if _says(port, HTTP2)[3:4] == SETTINGS:
        said = dict(_ask_grpc(port))
        if set(said.values()) != {"UNAVAILABLE"}:  # which is no answer of a server
            return said
    if not _ask_http(port, REQUESTS[0]):  # no server of HTTP
        return {"raw": str(max(len(_says(port, noise)) for noise in NOISE))}
    return {request: status for request in REQUESTS if (status := _ask_http(port, request))}


def methods() -> list[str]:
    """Every method of every service of Ray's, and gRPC's own health check."""
    from ray.core import generated

    found = ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    found += [f"/ray.rpc.ObjectManagerService/{name}" for name in ("Push", "Pull", "FreeObjects")]  # has no Python side
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            described: Any = importlib.import_module(f"{generated.__name__}.{module.name}").DESCRIPTOR
            for service in described.services_by_name.values():
                found += [f"/{service.full_name}/{method.name}" for method in service.methods]
    return found


def _says(port: int, what: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as asked:
        try:
            asked.sendall(what)
            return asked.recv(4096)
        except OSError:
            return b""


def _ask_http(port: int, request: str) -> str:
    method, path = request.split()
    body = b"{}" if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    answer = _says(port, head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return answer.split()[1].decode() if answer.startswith(b"HTTP/") else ""


def _ask_grpc(port: int) -> Iterator[tuple[str, str]]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        waiting = {method: channel.unary_unary(method).future(b"", timeout=GRPC_S) for method in METHODS}
        for method, answer in waiting.items():
            code = answer.exception().code().name if answer.exception() is not None else "OK"
            if code != "UNIMPLEMENTED":
                yield method, code


METHODS: list[str] = []


def main() -> None:
    METHODS.extend(methods())
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    ports = list(map(int, sys.argv[1:]))
    with ThreadPoolExecutor(8) as pool:
        print(json.dumps(dict(zip(ports, pool.map(ask, ports), strict=True))))


if __name__ == "__main__":
    main()
