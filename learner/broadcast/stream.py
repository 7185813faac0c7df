"""One version of the weights made while it is sent: bucket after bucket, by turns in two rooms.

What a sync takes beside the model is two buckets and one tensor, however large the model is. A tensor is put together
from the ranks' shards, copied into its room and let go of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby

import torch

from rayzero.learner.broadcast.buffer import spec_of
from rayzero.learner.broadcast.gpu_memory import mappable_memory
from rayzero.learner.broadcast.shared_memory import SharedBuffer
from rayzero.services.schema.broadcast.digest import LANES, Fingerprints, digest, fingerprint_text
from rayzero.services.schema.broadcast.wire import NUM_ROOMS, Extent, plan_buckets, room_of
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import TensorSpec, WeightManifest

Outline = Sequence[tuple[str, torch.Size]]
"""Names and shapes of what will be sent, in order."""


class BucketStream:
    """Two rooms, kept from version to version, and what the buckets of this version hold."""

    def __init__(self, dtype: torch.dtype, bucket_bytes: int, device: torch.device) -> None:
        """`dtype` is the engines'; a tensor larger than `bucket_bytes` has a bucket of its own."""
        self._dtype, self._bucket_bytes, self._device = dtype, bucket_bytes, device
        self._host = SharedBuffer(0)
        self._memory = torch.empty(0, dtype=torch.uint8, device=device)
        """On a GPU the rooms themselves, whose copies `_host` holds when they are asked for."""
        self._host_holds: dict[int, int] = {}
        """Which bucket lies in each room of the host's copy."""
        self._specs: list[list[TensorSpec]] = []
        """By bucket."""
        self.extents: tuple[Extent, ...] = ()
        """Where each tensor lies in its bucket."""
        self._digests: dict[int, list[str]] = {}
        self._fingerprints: Fingerprints | None = None
        self._digester = ThreadPoolExecutor(1, "weights-digest")  # beside the copying: both are bound by memory
        self.manifest: WeightManifest | None = None
        """Of the version that is announced; None: none yet."""

    def announce(self, outline: Outline, policy_version: int, adapter_scaling: float | None = None) -> WeightManifest:
        """Say what will be sent; nothing is put together yet."""
        sizes = [shape.numel() * self._dtype.itemsize for _, shape in outline]
        extents, bucket_sizes = plan_buckets(sizes, self._bucket_bytes)
        placed = ((name, shape, extent) for (name, shape), extent in zip(outline, extents, strict=True))
        specs = [spec_of(each, "", self._dtype) for each in placed]
        self._specs = [list(members) for _, members in groupby(specs, key=lambda spec: spec.bucket)]
        self.manifest = WeightManifest(
            policy_version=policy_version,
            tensors=tuple(specs),
            bucket_bytes=bucket_sizes,
            adapter_scaling=adapter_scaling,
            streamed=True,
        )
        self.extents = extents
        if self._device.type == "cuda" and (self._fingerprints is None or self._fingerprints.extents != extents):
            self._fingerprints = Fingerprints(extents, partial(torch.tensor, dtype=torch.int64, device=self._device))
        return self.manifest

    @property
    def num_buckets(self) -> int:
        """Of the version that is announced."""
        return len(self._specs)

    @property
    def memory(self) -> torch.Tensor:
        """[n] uint8: the rooms, on the GPU if the learner has one."""
        return self._memory

    def bucket(self, index: int) -> torch.Tensor:
        """[bytes] uint8 of a bucket that is in its room."""
        return self._room(self._memory, index)

    def host_bucket(self, index: int) -> torch.Tensor:
        """The same in the host's shared memory; a GPU's is copied there when it is first asked for."""
        if self._device.type == "cpu":
            return self.bucket(index)
        if self._host.name.num_bytes != self._memory.numel():
            self._host.close()
            self._host, self._host_holds = SharedBuffer(self._memory.numel()), {}
        if self._host_holds.get(index % NUM_ROOMS) != index:
            self._room(self._host.memory, index).copy_(self.bucket(index))
            self._host_holds[index % NUM_ROOMS] = index
        return self._room(self._host.memory, index)

    @property
    def host(self) -> SharedBuffer:
        """The shared memory that receivers on this machine open."""
        return self._host

    def digests(self, index: int) -> list[str]:
        """Of the tensors of a bucket that was filled, in order."""
        return self._digests[index]

    def fill(self, index: int, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Take the tensors of a bucket, the next of `tensors` (any dtype, whole), into its room, and digest them.

        Raises:
            WeightSyncError: they are not those that were announced.
        """
        assert self.manifest is not None
        self._make_room(self.manifest.largest_bucket_bytes)  # here, for rank 0 alone comes here
        self._host_holds.pop(index % NUM_ROOMS, None)
        room, digests = self.bucket(index), list[Future[str]]()
        for spec in self._specs[index]:
            name, tensor = next(tensors, ("nothing", None))
            if tensor is None or name != spec.name or tuple(tensor.shape) != spec.shape:
                raise WeightSyncError(f"{spec.name} was announced to be sent next, and {name} came")
            part = room[spec.offset_bytes : spec.offset_bytes + spec.num_bytes]
            part.view(self._dtype).view(spec.shape).copy_(tensor.detach())
            del tensor  # before the next is put together
            if self._fingerprints is None:
                digests.append(self._digester.submit(digest, part))
        if self._fingerprints is None:
            self._digests[index] = [each.result() for each in digests]
            return
        sums = self._fingerprints.of_bucket(index, room.view(torch.int32).view(-1, LANES))
        self._digests[index] = [fingerprint_text(total) for total in sums.tolist()]  # waits for what was copied, too

    def close(self) -> None:
        """Let go of the rooms."""
        self._digester.shutdown(wait=False)
        self._host.close()

    def _room(self, memory: torch.Tensor, index: int) -> torch.Tensor:
        assert self.manifest is not None
        room: torch.Tensor = room_of(memory, index, self.manifest.bucket_bytes[index])
        return room

    def _make_room(self, largest_bytes: int) -> None:
        num_bytes = NUM_ROOMS * largest_bytes
        if self._memory.numel() == num_bytes:
            return
        self._memory = torch.empty(0, dtype=torch.uint8)  # the old ones first: there may be no room for four
        if self._device.type == "cpu":
            self._host.close()
            self._host = SharedBuffer(num_bytes)
            self._memory = self._host.memory
            return
        with mappable_memory():
            # Not zeroed: what lies between the tensors is part of their sums, and is sent as it is.
            self._memory = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
