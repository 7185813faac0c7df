"""Addresses of both families, where machines have both."""

from __future__ import annotations

import socket

import pytest
import torch.distributed

from rayzero.services.schema.addresses import address_towards, family_of, free_port, host_port
from rayzero.services.schema.weights import Rendezvous
from tests.system import LOOPBACKS


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert host_port("10.0.0.1", 80) == "10.0.0.1:80"
    assert host_port("node-1.cluster", 80) == "node-1.cluster:80"
    assert host_port("fd00::2", 80) == host_port("[fd00::2]", 80) == "[fd00::2]:80"


@pytest.mark.parametrize("host", LOOPBACKS)
def test_loopback_is_reached_over_the_loopback(host: str) -> None:
    assert address_towards(host, 80) == host


@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_free_port_can_be_listened_on(host: str) -> None:
    with socket.create_server((host, free_port(host)), family=family_of(host)):
        pass


@pytest.mark.parametrize("host", LOOPBACKS)
def test_torch_finds_ranks_at_a_rendezvous_of_either_family(host: str) -> None:
    place = Rendezvous(host=host, port=free_port(host), world_size=1)
    store, rank, world_size = next(torch.distributed.rendezvous(f"tcp://{place.address}", 0, 1))  # type: ignore[attr-defined]
    assert (store.host, store.port, rank, world_size) == (host, place.port, 0, 1)


def test_a_name_with_both_families_is_listened_on_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(family, socket.SOCK_STREAM, 0, "", ()) for family in (socket.AF_INET6, socket.AF_INET)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert family_of("localhost") is socket.AF_INET


def test_an_address_without_a_route_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with two families, on a machine that has one."""

    def both(host: str, port: int, type: int) -> list[object]:
        unreachable = (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("256.0.0.1", port))
        return [unreachable, (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert address_towards("two", 80) == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both("", 1, 0)[:1])
    with pytest.raises(OSError):
        address_towards("none", 80)
