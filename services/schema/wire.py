"""The shared header of the weight broadcast: what both halves of the wire must agree on, in the standard library alone.

One broadcast, on the keys of a TCP store that the learner (rank 0) serves:

    receiver: joined/{rank}                            each says who it is
    both:     a collective group over the same store    connected pairwise
    receiver: ready/{version}/{rank}                    the handshake before every broadcast: a collective cannot
                                                        tell a slow peer from a dead one, a missing key can
    rank 0:   the manifest's buckets, broadcast in order
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

ALIGNMENT_BYTES = 64
"""Tensors start on cache lines, so that a view of the staging buffer is as good as a tensor of its own."""

GROUP_PREFIX = "group"
"""Prefix of the collective group's own keys in the store."""


def joined_key(rank: int) -> str:
    """Set by a receiver when it has found the store."""
    return f"joined/{rank}"


def ready_key(policy_version: int, rank: int) -> str:
    """Set by a receiver that is about to take a broadcast."""
    return f"ready/{policy_version}/{rank}"


def address_towards(host: str, port: int) -> str:
    """This machine's own address on the route to `host`: the one its peers can reach. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Where one tensor lies: in which bucket, and how far into it."""

    bucket: int
    offset_bytes: int
    num_bytes: int


def plan_buckets(sizes_bytes: Iterable[int], bucket_bytes: int) -> tuple[tuple[Extent, ...], tuple[int, ...]]:
    """Lay tensors out, in order, in buckets of at most `bucket_bytes`; a larger tensor gets a bucket of its own.

    Few large messages are what a broadcast is fast at: 1.5 GB/s in pieces of 1 MiB, 4 GB/s in pieces of 64.

    Returns:
        One extent a tensor, and the size of every bucket.
    """
    extents: list[Extent] = []
    buckets: list[int] = []
    for size in sizes_bytes:
        aligned = -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not buckets or buckets[-1] + aligned > bucket_bytes:
            buckets.append(0)
        extents.append(Extent(bucket=len(buckets) - 1, offset_bytes=buckets[-1], num_bytes=size))
        buckets[-1] += aligned
    return tuple(extents), tuple(buckets)
