"""A Ray of this machine alone: who calls it must know its token, and its ports are those of loopback.

Ray runs what its callers send. One that asks for no token hands this user's rights to every user of the machine, and
one that listens on every interface to the network, too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from ray import _raylet
from ray._private import ray_constants

from rayzero.services.schema.reports import send_no_reports

RAYLET: Any = _raylet
"""Untyped: it is compiled, and its stubs leave most of it out."""

MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"

SYSTEM_CONFIG = {"enable_metrics_collection": False}
"""Of a Ray that lives as long as one run: its own metrics would be served to every user of the machine."""

RAY_FOLDER = "r"
"""Within a private folder: Ray opens the folder that it is given to every user (mode 0777), with its sockets and the
code that it unpacks. The name is short, for a socket's path may have 107 bytes."""

LEFT_S = 10.0
"""How long a process that was killed may take to be gone."""

LOOPBACK_ENVIRONMENT = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Of its actors: gloo, NCCL and vLLM would look for an address that other machines can reach."""


@contextlib.contextmanager
def token_required() -> Iterator[None]:
    """Ray that this process, or a child of it, starts within asks for a token.

    The token is the user's where RAY_AUTH_TOKEN is set, else one that lives as long as the block. It travels in the
    environment alone: command lines are everybody's to read, and a file in the home directory would change how every
    later Ray connects. A RAY_AUTH_MODE that is set for a cluster does not count here.
    """
    send_no_reports()
    asked = {MODE: "token", TOKEN: os.environ.get(TOKEN) or secrets.token_hex(32)}
    try:
        with _environment(asked):
            _read_again()
            yield
    finally:
        _read_again()


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """`ray.init` within starts a node whose address is loopback's: what it opens, it opens there.

    Ray takes 127.0.0.1, given as an address, for the machine's own address, and binds many of its ports to all
    interfaces then. It stays at loopback where it takes itself for a Ray that is never a cluster.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def end_processes_of(folder: Path) -> None:
    """Kill what still runs of a Ray that has ended: its agent, where it was still starting, would write there again.

    Ray names the folder in options; a program that only reads a file in it is left alone.
    """
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(argument.startswith("--") and f"={folder}/" in argument for argument in process.cmdline()):
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=LEFT_S)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_again() -> None:
    """Ray has read both variables when it was imported, and remembers them."""
    RAYLET.Config.initialize("")
    RAYLET.AuthenticationTokenLoader.instance().reset_cache()
