"""What a local Ray is started with: a token that lives as long as it, and loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import _raylet
from ray._private import services

from rayzero.services.fleet.local_ray import end_processes_of, on_loopback, token_required
from tests.process_life import lives

raylet: Any = _raylet
"""Its stub leaves out what is said of tokens."""


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment in which nothing is said of tokens; Ray reads the tests' own again in the end."""
    with monkeypatch.context() as patch:
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        patch.delenv("RAY_AUTH_MODE", raising=False)
        yield
    with token_required():
        pass


def known_to_ray() -> str:
    """The token that Ray sends from here on."""
    assert raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
    headers = raylet.AuthenticationTokenLoader.instance().get_token_for_http_header()
    return str(headers["authorization"]).removeprefix("Bearer ")


@pytest.mark.parametrize("mode", [None, "disabled", "token"])
def test_every_ray_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    """A mode that is set for a cluster opens no local Ray."""
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    tokens = set[str]()
    for _ in range(2):
        with token_required():
            assert os.environ["RAY_AUTH_MODE"] == "token"
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
            assert known_to_ray() == os.environ["RAY_AUTH_TOKEN"]
        assert (os.environ.get("RAY_AUTH_MODE"), os.environ.get("RAY_AUTH_TOKEN")) == (mode, None)
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)


def test_the_users_token_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the-users-own")
    with token_required():
        assert known_to_ray() == "the-users-own"
    assert os.environ["RAY_AUTH_TOKEN"] == "the-users-own"


def test_after_a_local_ray_the_mode_of_a_cluster_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with token_required():
        pass
    assert raylet.get_authentication_mode() == raylet.AuthenticationMode.DISABLED


def test_a_node_is_at_loopback() -> None:
    before = services.get_node_ip_address()
    with on_loopback():
        assert services.get_node_ip_address() == "127.0.0.1"
    assert services.get_node_ip_address() == before


def test_what_a_ray_left_behind_is_ended_and_a_reader_of_its_files_is_not(tmp_path: Path) -> None:
    """An agent that was still starting when its Ray ended wrote into a folder that had been removed."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    agent = subprocess.Popen([*sleep, f"--log-dir={tmp_path}/r/session/logs"])
    reader = subprocess.Popen([*sleep, f"{tmp_path}/r/session/logs/agent.log"])
    other = subprocess.Popen([*sleep, f"--log-dir={tmp_path}2/r/session/logs"])
    try:
        end_processes_of(tmp_path)
        assert not lives(agent.pid) and lives(reader.pid) and lives(other.pid)
    finally:
        for process in (agent, reader, other):
            process.kill()
            process.wait()
