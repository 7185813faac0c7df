"""The shared header of the weight broadcast: what both halves of the wire must agree on, in the standard library alone.

One broadcast, on the keys of a store that the learner (rank 0) serves (store.py):

    rank 0:   probe                      a shared buffer to look for
    receiver: joined/{rank}              who it is (services/schema/broadcast/transport.py): host, GPU, whether it sees
    the probe rank 0:   links                      how each rank is served: memory, gloo, nccl or ipc
    rank 0:   nccl                       the unique id of the NCCL group, where there is one
    nccl:     connected/{rank}           it is in; who is not is named when the deadline has passed
    receiver: ready/{version}/{rank}     the handshake before every broadcast: a collective cannot tell a slow peer
                                         from a dead one, a missing key can. Its value: what is staged
    rank 0:   delta/{version}/{rank}     where the manifest has `since`: bytes of the delta that comes; 0: all come
    rank 0:   buffer/{version}           where the buckets lie, for receivers on the same machine
              ipc/{version}/{rank}       the CUDA handle of the same, for receivers on the same GPU
    nccl:     received/{version}/{rank}  it has so many messages; who has not all is named when the deadline has passed

In a streamed broadcast buckets come one after the other, by turns in two rooms, and so do their digests:

    rank 0:   bucket/{version}/{index}   the digests of its tensors, in order; where the room is mapped: it is filled
    mapped:   taken/{version}/{index}/{rank}   what was in the room is no longer looked at: fill it again
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

BUCKET_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""By the learner's device. Loopback gloo is fastest between 16 and 128 MiB; NCCL wants more at a time."""

ALIGNMENT_BYTES = 64
"""Tensors start on cache lines, so that a view of the staging buffer is as good as a tensor of its own."""

NUM_ROOMS = 2
"""Buckets of a streamed broadcast that lie anywhere at a time: one is made, or arrives, while the one before is sent on
or loaded."""

WORD_BYTES = 2
"""What a delta is made of: a bf16 value, or half an fp32 one."""

DELTA_SHARE = 4
"""A delta of more than one in so many of the bytes is not sent: both ends would need memory for it."""

GROUP_PREFIX = "group"
"""Prefix of the gloo group's own keys in the store."""

PROBE_KEY = "probe"
"""Set by rank 0 before anybody joins: a `SharedBufferName` as text."""

LINKS_KEY = "links"
"""Set by rank 0 when all have joined: the link of every rank."""

NCCL_KEY = "nccl"
"""Set by rank 0 before the NCCL group connects: its unique id, hexadecimal."""


def joined_key(rank: int) -> str:
    """Set by a receiver when it has found the store: its `Peer`."""
    return f"joined/{rank}"


def connected_key(rank: int) -> str:
    """Set by a receiver that is in the NCCL group."""
    return f"connected/{rank}"


def received_key(policy_version: int, rank: int) -> str:
    """Set by a receiver when it has taken an NCCL broadcast, or a bucket of one: how many messages it has."""
    return f"received/{policy_version}/{rank}"


def ipc_key(policy_version: int, rank: int) -> str:
    """Set by rank 0 when all are ready: the CUDA handle of its buffer as JSON, one export a receiver."""
    return f"ipc/{policy_version}/{rank}"


def buffer_key(policy_version: int) -> str:
    """Set by rank 0 when all are ready: the `SharedBufferName` of what it sends, as text."""
    return f"buffer/{policy_version}"


def ready_key(policy_version: int, rank: int) -> str:
    """Set by a receiver that is about to take a broadcast: the content that a delta could start from; or empty."""
    return f"ready/{policy_version}/{rank}"


def delta_key(policy_version: int, rank: int) -> str:
    """Set by rank 0 where a delta could be sent: its bytes, or 0 where the whole version is."""
    return f"delta/{policy_version}/{rank}"


def delta_bits_bytes(num_bytes: int) -> int:
    """How many bytes of a delta say which words of the first `num_bytes` of a buffer are new: a bit for each."""
    return num_bytes // (8 * WORD_BYTES)


def bucket_key(policy_version: int, index: int) -> str:
    """Set by rank 0 when a streamed bucket is made: its digests, as `digests_text` writes them."""
    return f"bucket/{policy_version}/{index}"


def taken_key(policy_version: int, index: int, rank: int) -> str:
    """Set by a receiver that maps rank 0's rooms when it is done with a streamed bucket."""
    return f"taken/{policy_version}/{index}/{rank}"


def digests_text(digests: Iterable[str]) -> str:
    """How a bucket's digests stand in the store."""
    return json.dumps(list(digests))


def parse_digests(text: str | bytes) -> list[str]:
    """The inverse of `digests_text`."""
    return [str(digest) for digest in json.loads(text)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedBufferName:
    """An anonymous file of a process on this machine: gone with it, however it ends, and nowhere else to be seen.

    The label tells it from the file that happens to have the same name on another machine.
    """

    process: int
    descriptor: int
    label: str
    num_bytes: int

    @property
    def path(self) -> str:
        """Where other processes of the same user open it."""
        return f"/proc/{self.process}/fd/{self.descriptor}"

    def is_here(self) -> bool:
        """Whether this process can see it."""
        try:
            return self.label in os.readlink(self.path)
        except OSError:
            return False

    def __str__(self) -> str:
        return f"{self.process} {self.descriptor} {self.label} {self.num_bytes}"

    @staticmethod
    def parse(text: str) -> SharedBufferName:
        """The inverse of `str`."""
        process, descriptor, label, num_bytes = text.split()
        return SharedBufferName(process=int(process), descriptor=int(descriptor), label=label, num_bytes=int(num_bytes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Where one tensor lies: in which bucket, and how far into it."""

    bucket: int
    offset_bytes: int
    num_bytes: int


def room_of(memory: Any, index: int, num_bytes: int) -> Any:
    """Where bucket `index` of a streamed broadcast lies in `memory` [n] uint8: NUM_ROOMS rooms of equal size."""
    start = index % NUM_ROOMS * (memory.numel() // NUM_ROOMS)
    return memory[start : start + num_bytes]


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
