"""The store where a transfer's ranks meet: its secret is needed, its address is the one it was given, waits end."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rayzero.services.schema.addresses import family_of
from rayzero.services.schema.broadcast import store as greeting
from rayzero.services.schema.broadcast.store_client import StoreClient
from rayzero.services.schema.broadcast.store_server import StoreServer
from tests.system import LOOPBACKS

SOON = timedelta(seconds=0.2)


@pytest.fixture
def server() -> Iterator[StoreServer]:
    served = StoreServer("127.0.0.1", 5.0)
    yield served
    served.close()


def client(server: StoreServer, secret: str | None = None) -> StoreClient:
    return StoreClient("127.0.0.1", server.port, server.secret if secret is None else secret, 5.0)


@pytest.mark.parametrize("host", LOOPBACKS)
def test_it_listens_at_its_address_and_nowhere_else(host: str) -> None:
    served = StoreServer(host, 5.0)
    try:
        assert served._listener.getsockname()[0] == host
        reader = StoreClient(host, served.port, served.secret, 5.0)
        served.set("a", b"\xff\0")
        assert reader.get("a") == b"\xff\0"
        reader.close()
    finally:
        served.close()


def test_what_one_sets_the_others_see(server: StoreServer) -> None:
    one, other = client(server), client(server)
    one.set("text", "é")
    assert other.get("text") == server.get("text") == "é".encode()
    assert [one.add("count", 2), server.add("count", 1), other.add("count", -1)] == [2, 3, 2]
    assert other.check(["text", "count"]) and not other.check(["text", "none"])
    assert one.delete_key("text") and not one.delete_key("text")
    threading.Timer(0.1, other.set, ("late", "x")).start()
    begun = time.monotonic()
    assert one.get("late") == b"x" and time.monotonic() - begun < 3
    for each in (one, server):
        with pytest.raises(TimeoutError, match="never not set within"):
            each.wait(["never"], SOON)
    one.close()
    other.close()


@pytest.mark.parametrize("secret", ["", "wrong", "0" * 64])
def test_a_stranger_sets_and_reads_nothing(server: StoreServer, secret: str) -> None:
    """The second client of a TCP store, which could set the key that an engine waits for."""
    with pytest.raises(PermissionError, match="another transfer's"):
        client(server, secret)
    assert server._values == {}
    honest = client(server)
    honest.set("a", "1")
    honest.close()


def frame(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"", b"\0" * 500, b"\xff" * 500, frame(b"x" * 64), frame(b'["set", "a", "00"]')]
)
def test_what_is_no_greeting_is_hung_up_on(server: StoreServer, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as stranger:
        heard = b""
        with contextlib.suppress(OSError):  # it hung up before it had read or been told all
            stranger.sendall(said + frame(b'["set", "a", "00"]') * (said != b""))
            stranger.shutdown(socket.SHUT_WR)
            while more := stranger.recv(4096):
                heard += more
    assert len(heard) <= 4 + greeting.NONCE_BYTES, "the number, and no more"
    assert not server.check(["a"])


def test_who_says_nothing_is_hung_up_on_and_holds_nothing_up(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "GREETING_S", 0.3)
    silent = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(50)]
    honest = client(server)
    honest.set("a", "1")
    for each in silent:
        with each, each.makefile("rb") as heard:
            assert len(heard.read()) == 4 + greeting.NONCE_BYTES
    honest.close()


def test_a_false_server_learns_nothing_and_is_not_believed() -> None:
    """One that took the port over: all it can do is repeat."""
    with socket.create_server(("127.0.0.1", 0), family=family_of("127.0.0.1")) as false:

        def pretend() -> None:
            caller, _ = false.accept()
            with caller:
                caller.sendall(frame(b"n" * greeting.NONCE_BYTES))
                heard = caller.recv(4096)
                caller.sendall(frame(heard[-greeting.NONCE_BYTES :]))

        threading.Thread(target=pretend, daemon=True).start()
        with pytest.raises(PermissionError, match="another transfer's"):
            StoreClient("127.0.0.1", false.getsockname()[1], "s" * 64, 5.0)


def test_closing_ends_every_wait(server: StoreServer) -> None:
    waiting = client(server)
    threading.Timer(0.2, server.close).start()
    begun = time.monotonic()
    with pytest.raises(OSError):
        waiting.get("never")
    assert time.monotonic() - begun < 3
    waiting.close()
