"""A live run as another user of the machine sees it: every port it listens on, asked everything there is to ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.test_loop import assert_nothing_is_left, start, wait_for_update
from tests.listeners import Listener, listeners, marked, unix_sockets

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

OPEN = {
    "GET /api/healthz",
    "GET /api/local_raylet_healthz",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}
"""What Ray answers without a token: that it is up, and how its services are called (rewards/THREATS.md)."""
FIGURES = ("ray_", "autoscaler_", "dashboard_", "python_", "process_", "vllm:", "vllm_")
"""How metrics begin that are served without a token."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As on a user's machine: nothing is set for Ray, and no token for the API."""
    directory = tmp_path_factory.mktemp("ports") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAYZERO_API_TOKEN"):
            patch.delenv(name, raising=False)
        process = start(directory, "training.num_updates=500", "cold_start.num_updates=2", "evaluation.num_prompts=4")
    wait_for_update(directory, 1, process)
    yield directory
    updates = len((directory / "metrics.jsonl").read_text().splitlines())
    wait_for_update(directory, updates + 1, process)  # whatever it was asked, it trains on
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert_nothing_is_left(str(directory))


@pytest.fixture(scope="module")
def ports(run: Path) -> list[Listener]:
    return listeners(str(run))


@pytest.fixture(scope="module")
def said(run: Path, ports: list[Listener]) -> dict[int, dict[str, str]]:
    """By port, what it says to another user."""
    command = [sys.executable, "-m", "tests.stranger", *(str(each.port) for each in ports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True)
    return {int(port): answers for port, answers in json.loads(done.stdout).items()}


def test_every_port_is_loopbacks_and_every_socket_in_a_private_folder(run: Path, ports: list[Listener]) -> None:
    assert len(ports) >= 10, "a driver, Ray's daemons, three actors"
    assert {each.host for each in ports} <= {"127.0.0.1", "::1"}, ports
    for name in unix_sockets(str(run)):
        assert not name.startswith("@"), "an abstract socket is every user's"
        assert any(path.stat().st_mode & 0o077 == 0 for path in Path(name).parents if str(path) not in ("/", "/tmp"))


def test_another_user_is_told_nothing_and_changes_nothing(
    run: Path, ports: list[Listener], said: dict[int, dict[str, str]]
) -> None:
    kinds = Counter[str]()
    for port in ports:
        answers = said[port.port]
        if "raw" in answers:
            kinds["silent"] += 1
            assert int(answers["raw"]) <= 36, f"{port}: a greeting's number at most"
        elif any(name.startswith("/") for name in answers):
            kinds["grpc"] += 1
            told = {name for name, code in answers.items() if code != "UNAUTHENTICATED"}
            assert told <= OPEN, f"{port}: {Counter(answers.values())} {sorted(told)[:20]}"
            assert len(answers) > 2, f"{port}: only these are known: {answers}"
        elif answers.get("GET /metrics") == "200":
            kinds["figures"] += 1
            posts = {status for name, status in answers.items() if name.startswith("POST")}
            assert posts == {"405"}, f"{port} takes something: {answers}"
        else:
            kinds["http"] += 1
            told = {name for name, status in answers.items() if status != "401"}
            assert told <= OPEN, f"{port}: {told}"
    if os.getuid() == 0:  # only then was the stranger another user
        assert kinds["grpc"] >= 7 and kinds["figures"] <= 3, kinds
        api = urlsplit(json.loads((run / "api.json").read_text())["url"]).port
        assert api is not None and set(said[api].values()) == {"401"}


def content(file: Path) -> bytes:
    """Of a file; nothing where it is none, or is gone by now: the run goes on."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_the_token_is_in_no_file_and_on_no_command_line(run: Path) -> None:
    tokens = set[str]()
    for pid, _ in marked(str(run)):
        for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if line.startswith(b"RAY_AUTH_TOKEN="):
                tokens.add(line.partition(b"=")[2].decode())
    assert tokens and all(len(token) == 64 for token in tokens)  # a Ray that was too slow to start had another
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid, _ in marked(str(run))]
    assert not [command for command in commands for token in tokens if token in command]
    session = {Path(name).parents[1] for name in unix_sockets(str(run)) if "session_" in name}
    for folder in (run, *session, Path.home() / ".ray"):
        assert not [file for file in folder.rglob("*") for token in tokens if token.encode() in content(file)]
