"""Many connections, slow ones, and other users': the API answers those who ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayzero.services.observe.api import guard
from rayzero.services.observe.api.connections import Connection
from rayzero.services.observe.api.server import serve
from tests.system import AS_ROOT
from tests.unit.services.observe.api.kit import Watched

TOKEN = "0123456789abcdef-token"
HALF = b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
STRANGER = """
import encodings.idna, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
head = b" HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Type: application/json\\r\\nContent-Length: 2\\r\\n\\r\\n{}"
for request in (b"GET /v1/status", b"GET /metrics", b"GET /", b"POST /v1/stop"):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as asked:
        asked.sendall(request + head)
        print(asked.makefile("rb").readline().split()[1].decode())
# Sent, and gone before the server looks: the kernel then gives the socket to root.
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as asked:
    asked.sendall(b"POST /v1/stop" + head)
"""


@contextlib.asynccontextmanager
async def half_open(port: int, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that have sent half a request."""
    opened = []
    for _ in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HALF)
        opened.append((reader, writer))
    await asyncio.sleep(0.1)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def still_open(readers: list[asyncio.StreamReader]) -> int:
    """How many of them the server has not hung up on."""
    number = 0
    for reader in readers:
        try:
            await asyncio.wait_for(reader.read(1), 0.005)
        except TimeoutError:
            number += 1
        except ConnectionError:
            pass
    return number


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("RAYZERO_API_TOKEN", TOKEN)
    return {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("has_token", [True, False])
async def test_hundreds_of_half_sent_requests_keep_no_honest_client_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_token: bool
) -> None:
    monkeypatch.setenv("RAYZERO_API_TOKEN", TOKEN if has_token else "")
    headers = {"authorization": f"Bearer {TOKEN}"} if has_token else {}
    async with serve(Watched(tmp_path).view) as url, half_open(int(url.rpartition(":")[2]), 400) as readers:
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            for _ in range(3):
                assert (await client.get("/v1/status", timeout=5)).status_code == 200
        assert await still_open(readers) <= Connection.max_of_one_peer < Connection.max_connections


async def test_a_half_sent_request_is_hung_up_on_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "request_s", 0.2)
    async with serve(Watched(tmp_path).view) as url, half_open(int(url.rpartition(":")[2]), 3) as readers:
        await asyncio.sleep(0.5)
        assert await still_open(readers) == 0


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: dict[str, str]
) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.2)
    async with serve(Watched(tmp_path).view) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
            b"Authorization: " + token["authorization"].encode() + b"\r\n\r\n{"
        )
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        await hang_up(writer)


async def test_an_answer_that_is_not_taken_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "reading_s", 0.2)
    monkeypatch.delenv("RAYZERO_API_TOKEN", raising=False)
    watched = Watched(tmp_path)
    await watched.start()
    watched.view.rows = [{"update": 1, "text": "x" * 30_000_000}]
    async with serve(watched.view) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1)
        writer.write(b"GET /v1/rows HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        try:
            await asyncio.wait_for(reader.read(1), 60)  # under load the answer may take longer than the pause
            await asyncio.sleep(1.0)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(30_000_000)
        finally:
            await hang_up(writer)


@AS_ROOT
async def test_without_a_token_other_users_of_the_machine_are_refused(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.start()
    async with serve(watched.view) as url:
        asked = [sys.executable, "-S", "-c", STRANGER, url.rpartition(":")[2]]
        done = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, check=True, timeout=30)
        await asyncio.sleep(0.1)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/v1/status")).status_code == 200
    assert done.stdout.split() == ["401"] * 4
    assert not watched.run.controller.stopping


async def test_who_asks_is_who_is_connected(tmp_path: Path, token: dict[str, str]) -> None:
    watched = Watched(tmp_path)
    await watched.go()
    async with serve(watched.view) as url, httpx.AsyncClient(base_url=url, headers=token, trust_env=False) as client:
        forged = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9"}
        assert (await client.post("/v1/pause", json={}, headers=forged)).status_code == 200
    assert watched.view.events.latest(1)[0]["caller"] == "127.0.0.1"


async def test_odd_requests_are_the_callers_fault(tmp_path: Path, token: dict[str, str]) -> None:
    """As bytes, for no client would send them."""

    async def ask(port: int, head: str, body: bytes = b"") -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        given = f"Authorization: {token['authorization']}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + given.encode() + body)
        line = await asyncio.wait_for(reader.readline(), 5)
        await hang_up(writer)
        return int(line.split()[1])

    watched = Watched(tmp_path)
    await watched.start()
    async with serve(watched.view) as url:
        port = int(url.rpartition(":")[2])
        get = "GET /v1/status HTTP/1.1\r\n"
        assert await ask(port, f"{get}Host: 127.0.0.1\r\n") == 200
        assert await ask(port, f"{get}Host: 127.0.0.1\r\nHost: evil.example\r\n") == 400
        assert await ask(port, "GET http://evil.example/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n") == 400
        for origin in ("http://[zz", "http://[::", "null", "\x01", "http://127.0.0.1:x@evil.example"):
            assert 400 <= await ask(port, f"{get}Host: 127.0.0.1\r\nOrigin: {origin}\r\n") < 404
        post = "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
        for change in ("scale", "drain", "pause"):
            for body in (b'{"deadline_s":NaN}', b'{"deadline_s":1e400}', b'{"worker":"\\ud800","rollout":-Infinity}'):
                assert await ask(port, f"POST /v1/{change} HTTP/1.1\r\n{post}", body) == 422
        assert await ask(port, f"POST /v1/drain HTTP/1.1\r\n{post}", json.dumps({"worker": "\ud800"}).encode()) < 500
        assert await ask(port, f"POST /v1/drain HTTP/1.1\r\n{post}", b'{"worker":"a","\\ud800":1}') == 422


async def test_every_answer_says_whose_it_is_and_is_no_other_sites(tmp_path: Path, token: dict[str, str]) -> None:
    watched = Watched(tmp_path)
    async with serve(watched.view) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        run: dict[str, Any] = json.loads(watched.directory.file("api.json").read_text())
        for path, status in (("/", 200), ("/healthz", 200), ("/v1/status", 401), ("/nothing", 401)):
            answer = await client.get(path)
            assert answer.status_code == status
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["x-rayzero-run"] == run["run_id"]
        assert (await client.get("/v1/status", headers={"authorization": TOKEN})).status_code == 401
    assert "token_env" not in run and TOKEN not in str(run)
