"""The receiving end of each way from the learner on the host: its shared memory, and a gloo broadcast."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed

from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.services.schema.addresses import address_towards
from rayzero.services.schema.broadcast.store import Store, as_torch_store
from rayzero.services.schema.broadcast.wire import GROUP_PREFIX, SharedBufferName, buffer_key, room_of
from rayzero.services.schema.weights import Rendezvous, WeightManifest

DISTRIBUTED: Any = torch.distributed
"""Untyped: torch's stubs leave its gloo group out."""


class ReceivingLink(Protocol):
    """One receiver's way from the learner."""

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """Bucket after bucket of one broadcast, each when it lies in `staging`.

        `keep`: what is staged must outlive the transfer, because it is loaded later.

        Raises:
            RuntimeError, OSError, TimeoutError: it did not come in time, or the learner or a peer is gone.
        """
        ...

    def take_bucket(self, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float) -> torch.Tensor:
        """One bucket of a streamed broadcast, whose digests are there: [bytes] uint8 in `room`, or at the learner's.

        Raises as `take`.
        """
        ...

    def close(self) -> None:
        """Hang up. Peers that still wait for this one get an error."""
        ...


@runtime_checkable
class CopyingReceiver(ReceivingLink, Protocol):
    """A way on which the bytes come, and are kept."""

    def take_delta(self, policy_version: int, num_bytes: int, deadline_s: float) -> torch.Tensor:
        """[num_bytes] uint8 where the weights are staged: what is new in a version. Raises as `take`."""
        ...


class MemoryReceiver:
    """On the learner's machine: its own buffer, mapped."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mapped: tuple[SharedBufferName, torch.Tensor] | None = None

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """See `ReceivingLink`."""
        mapped = self._map(manifest, deadline_s, staging.let_go)
        if keep:
            # Loaded only in the pause, when the learner may be writing the next version already.
            staging.fill(manifest, mapped)
        else:
            staging.use(manifest, mapped)
        yield from range(len(manifest.bucket_bytes))

    def take_bucket(self, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float) -> torch.Tensor:
        """See `ReceivingLink`."""
        mapped: torch.Tensor = room_of(self._map(manifest, deadline_s), index, manifest.bucket_bytes[index])
        return mapped

    def _map(
        self, manifest: WeightManifest, deadline_s: float, let_go: Callable[[], None] = lambda: None
    ) -> torch.Tensor:
        key = buffer_key(manifest.policy_version)
        self._store.wait([key], timedelta(seconds=max(deadline_s, 0.001)))
        name = SharedBufferName.parse(self._store.get(key).decode())
        if self._mapped is None or self._mapped[0] != name:
            # Let go of the one before: its memory is freed with its last mapping.
            self._mapped = None
            let_go()
            self._mapped = (name, _map(name))
        return self._mapped[1]

    def close(self) -> None:
        """See `ReceivingLink`."""
        self._mapped = None


class GlooReceiver:
    """Elsewhere: one rank of a gloo group over the store."""

    def __init__(
        self, store: Store, rendezvous: Rendezvous, rank_and_size: tuple[int, int], timeout: timedelta
    ) -> None:
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = timeout
        address = address_towards(rendezvous.host, rendezvous.port)
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname=address)]
        self._store = as_torch_store(store, DISTRIBUTED.Store)
        self._group = DISTRIBUTED.ProcessGroupGloo(
            DISTRIBUTED.PrefixStore(GROUP_PREFIX, self._store), *rank_and_size, options
        )

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """See `ReceivingLink`."""
        give_up = time.monotonic() + deadline_s
        for index, bucket in enumerate(staging.lay_out(manifest)):
            self._broadcast(bucket, give_up - time.monotonic())
            yield index

    def take_delta(self, policy_version: int, num_bytes: int, deadline_s: float) -> torch.Tensor:
        """See `CopyingReceiver`."""
        return self._broadcast(torch.empty(num_bytes, dtype=torch.uint8), deadline_s)

    def take_bucket(self, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float) -> torch.Tensor:
        """See `ReceivingLink`."""
        return self._broadcast(room, deadline_s)

    def _broadcast(self, room: torch.Tensor, deadline_s: float) -> torch.Tensor:
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = 0
        self._group.set_timeout(timedelta(seconds=max(deadline_s, 0.001)))
        self._group.broadcast([room], options).wait()
        return room

    def close(self) -> None:
        """See `ReceivingLink`."""
        self._group.shutdown()


def _map(name: SharedBufferName) -> torch.Tensor:
    descriptor = os.open(name.path, os.O_RDWR)
    try:
        return torch.frombuffer(mmap.mmap(descriptor, name.num_bytes), dtype=torch.uint8)
    finally:
        os.close(descriptor)
