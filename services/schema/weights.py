"""The messages of a weight sync: what is sent, where its ranks meet, and the proof that it arrived.

WeightManifest (with a TensorSpec a weight) + Rendezvous -> broadcast -> WeightReceipt
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from rayzero.services.schema.addresses import host_port


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """Where one weight lies in the broadcast, and what its bytes hash to."""

    name: str
    dtype: str
    """torch's name without the prefix, e.g. `bfloat16`."""
    shape: tuple[int, ...]
    bucket: int
    offset_bytes: int
    num_bytes: int
    checksum: str
    """xxh3_64 of the tensor's bytes, hexadecimal; or what a GPU computes (services/schema/broadcast/digest.py). Empty
    in a streamed broadcast, where a bucket's digests come with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightManifest:
    """What the learner is about to broadcast: the receiver holds every byte against it before loading.

    Made by learner/broadcast/sender.py, read by rollout_workers/broadcast/receiver.py.
    """

    policy_version: int
    tensors: tuple[TensorSpec, ...]
    bucket_bytes: tuple[int, ...]
    """Size of every bucket, in the order in which they are broadcast."""
    adapter_scaling: float | None = None
    """alpha / rank where the tensors are adapters alone, named by services/schema/broadcast/adapters.py: the receiver
    adds them to the model's own weights. None: they are all of the weights."""
    since: str | None = None
    """`content` of a version: receivers that hold it may be sent what is new since then. None: all of it comes."""
    streamed: bool = False
    """Whether buckets are made while they are sent, two at a time: neither end holds the whole broadcast."""

    @property
    def content(self) -> str:
        """The version and a digest of all bytes: a learner that was started anew may make a version a second time, and
        not to the bit."""
        checksums = "".join(spec.checksum for spec in self.tensors).encode()
        return f"{self.policy_version}-{hashlib.blake2b(checksums, digest_size=8).hexdigest()}"

    @property
    def largest_bucket_bytes(self) -> int:
        """Of a room that any bucket fits in."""
        return max(self.bucket_bytes, default=0)

    @property
    def num_bytes(self) -> int:
        """Bytes of one full broadcast."""
        return sum(self.bucket_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendezvous:
    """Where the ranks of a transfer group meet: the learner is rank 0, receivers are 1 … world_size − 1."""

    host: str
    port: int
    world_size: int
    num_bytes: int = 0
    """Of the weights that rank 0 holds ready; 0: none yet."""
    secret: str = field(default="", repr=False)
    """Without it the store there says nothing."""
    file: str = ""
    """Where ranks of one machine meet instead of at a port, which would be open to the machine's other users."""

    @property
    def address(self) -> str:
        """`host:port`, as in a URL."""
        return host_port(self.host, self.port)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightReceipt:
    """A worker's proof that it serves a version. Made by rollout_workers, checked by services/loop/weight_sync.py."""

    worker: str
    policy_version: int
    num_tensors: int
    receive_s: float
    """Seconds from the announcement until every byte was there and held against its digest; generation goes on."""
    pause_s: float
    """Seconds in which the engine could not generate."""
