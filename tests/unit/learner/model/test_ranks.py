"""Where a learner's ranks meet: an address that is theirs, or a file; never every interface."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rayzero.learner.model.ranks import meeting_store
from rayzero.services.schema.addresses import free_port
from rayzero.services.schema.weights import Rendezvous
from tests.system import LOOPBACKS

TIMEOUT = timedelta(seconds=20)


def meet(rendezvous: Rendezvous) -> list[Any]:
    """The stores of two ranks."""
    stores: dict[int, Any] = {}

    def rank(number: int) -> Callable[[], None]:
        return lambda: stores.update({number: meeting_store(number, rendezvous, TIMEOUT)})

    threads = [Thread(target=rank(number)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [stores[number] for number in range(2)]


@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_port_is_open_at_the_given_address_alone(host: str) -> None:
    port = free_port(host)
    first, second = meet(Rendezvous(host=host, port=port, world_size=2))
    first.set("a", "1")
    assert second.get("a") == b"1"
    elsewhere = "127.0.0.2" if host != "127.0.0.2" else "127.0.0.3"
    with pytest.raises(OSError):
        socket.create_connection((elsewhere, port), timeout=5)


def test_on_one_machine_a_file_opens_no_port(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    first, second = meet(Rendezvous(host="127.0.0.1", port=port, world_size=2, file=str(tmp_path / "ranks")))
    first.set("a", "1")
    assert second.get("a") == b"1"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
