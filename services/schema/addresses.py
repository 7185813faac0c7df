"""Hosts and ports, of either family: an IPv6 address stands in brackets before a port."""

from __future__ import annotations

import socket


def host_port(host: str, port: int) -> str:
    """`host:port`, as URLs and Prometheus take it."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def family_of(host: str, port: int = 0) -> socket.AddressFamily:
    """The family of a host's addresses; IPv4 where it has both.

    Raises:
        OSError: it has none.
    """
    return min(found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def free_port(host: str) -> int:
    """A port that is free on this machine now, in the family of its address `host`."""
    with socket.socket(family_of(host), socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def address_towards(host: str, port: int) -> str:
    """This machine's own address on the route to `host`: the one its peers can reach. Sends nothing.

    Raises:
        OSError: there is no route to any of the host's addresses.
    """
    failure = OSError(f"{host} has no address")
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            try:
                probe.connect(address)
            except OSError as error:
                failure = error  # of a name with two families one may have no route
                continue
            return str(probe.getsockname()[0])
    raise failure
