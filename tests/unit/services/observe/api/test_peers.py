"""Whose connection it is, of either family."""

from __future__ import annotations

import os
import socket

import pytest

from rayzero.services.observe.api import peers
from rayzero.services.observe.api.peers import is_own
from rayzero.services.schema.addresses import family_of
from tests.system import LOOPBACKS


@pytest.mark.parametrize("host", LOOPBACKS)
def test_an_open_connection_is_this_users_and_a_closed_one_is_not(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((host, 0), family=family_of(host)) as server:
        own = server.getsockname()[:2]
        client = socket.create_connection(own)
        accepted, peer = server.accept()
        with accepted:
            assert is_own(peer[:2], own)
            assert not is_own((peer[0], peer[1] ^ 1), own)
            with monkeypatch.context() as patch:  # seen by another user, it is neither that user's nor root's
                patch.setattr(peers, "ROOT", -1)
                patch.setattr(os, "getuid", lambda: 12345)
                assert not is_own(peer[:2], own)
            client.close()
            assert not is_own(peer[:2], own)


def test_ipv4_within_ipv6_is_ipv4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            peer = client.getsockname()
            assert is_own((f"::ffff:{peer[0]}", peer[1]), ("::ffff:127.0.0.1", port))


@pytest.mark.parametrize("address", ["", "not an address", "1.2.3"])
def test_what_the_kernel_cannot_be_asked_is_not_own(address: str) -> None:
    assert not is_own((address, 1), ("127.0.0.1", 2))
