"""The learner's end of the weight broadcast: cast, lay out in buckets, digest, announce, send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
import xxhash

from learner.shared_buffer import SharedBuffer
from learner.transfer_group import SenderGroup
from services.schema.errors import WeightSyncError
from services.schema.messages import Rendezvous, TensorSpec, WeightManifest
from services.schema.wire import Extent, plan_buckets

DEFAULT_BUCKET_BYTES = 64 * 2**20
"""Loopback gloo is fastest between 16 and 128 MiB; one bucket is verified while the next one arrives."""


class WeightSender:
    """Sends the policy to all receivers at once: open, accept, then prepare and broadcast for every version.

    Blocks: call it from a thread where an event loop must go on. Not thread-safe.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        *,
        host: str = "127.0.0.1",
        deadline_s: float = 300.0,
        bucket_bytes: int = DEFAULT_BUCKET_BYTES,
        share_memory: bool = True,
    ) -> None:
        """`dtype` is the engines'; `host` the address at which receivers reach this process.

        Receivers on the same machine read the send buffer itself, unless `share_memory` is off; the others get it by
        gloo.
        """
        self._dtype, self._host, self._deadline_s, self._bucket_bytes = dtype, host, deadline_s, bucket_bytes
        self._share_memory = share_memory
        self._buffer = SharedBuffer(0)
        self._buckets: tuple[torch.Tensor, ...] = ()
        self._prepared_version: int | None = None
        self._group: SenderGroup | None = None

    def open(self, num_receivers: int) -> Rendezvous:
        """Choose where the transfer group meets, on a port of its own. Ends the group before it, if any."""
        self.close()
        self._group = SenderGroup(self._host, num_receivers, self._deadline_s, share_memory=self._share_memory)
        return self._group.rendezvous

    def accept(self) -> None:
        """Wait until every receiver has joined.

        Raises:
            WeightSyncError: names the ranks that did not come in time.
        """
        with self._closing_on_failure() as group:
            group.accept()

    def abort(self) -> None:
        """From another thread: let `accept` or `broadcast` stop waiting for a receiver that is known to be lost."""
        if self._group is not None:
            self._group.abort()

    def prepare(self, tensors: Iterable[tuple[str, torch.Tensor]], policy_version: int) -> WeightManifest:
        """Copy `tensors` (Hugging Face names, any dtype, full and on any device) into the send buffer, in order.

        The policy may change as soon as this returns; `broadcast` may follow, several times if need be. Not before all
        receivers have taken the version before it: those on this machine read it from this buffer.
        """
        named = list(tensors)
        sizes = [tensor.numel() * self._dtype.itemsize for _, tensor in named]
        extents, bucket_bytes = plan_buckets(sizes, self._bucket_bytes)
        if self._buffer.name.num_bytes != sum(bucket_bytes):
            self._buffer.close()
            self._buffer = SharedBuffer(sum(bucket_bytes))
        self._buckets = torch.split(self._buffer.memory, list(bucket_bytes))
        self._prepared_version = policy_version
        with ThreadPoolExecutor(1, "weights-digest") as digester:  # beside the copying: both are bound by memory
            placed = [
                (name, tensor.shape, extent, digester.submit(_digest, self._place(tensor, extent)))
                for (name, tensor), extent in zip(named, extents, strict=True)
            ]
        specs = (self._spec(name, shape, extent, checksum.result()) for name, shape, extent, checksum in placed)
        return WeightManifest(policy_version=policy_version, tensors=tuple(specs), bucket_bytes=bucket_bytes)

    def broadcast(self) -> None:
        """Send what was prepared to all receivers at once, after each has said that it is ready.

        Raises:
            WeightSyncError: names the ranks that are not ready; or a receiver died within. Then open anew.
        """
        if self._prepared_version is None:
            raise WeightSyncError("nothing to broadcast: prepare weights first")
        with self._closing_on_failure() as group:
            group.await_ready(self._prepared_version)
            group.publish(self._prepared_version, self._buffer.name)
            for bucket in self._buckets:
                group.send(bucket)

    def close(self) -> None:
        """Leave the transfer group."""
        if self._group is not None:
            self._group.close()
            self._group = None

    @contextmanager
    def _closing_on_failure(self) -> Iterator[SenderGroup]:
        """A group that failed cannot be used again; hanging up also frees the receivers that still wait in it."""
        try:
            yield self._opened
        except WeightSyncError:
            self.close()
            raise

    @property
    def _opened(self) -> SenderGroup:
        if self._group is None:
            raise WeightSyncError("there is no transfer group: open one first")
        return self._group

    def _place(self, tensor: torch.Tensor, extent: Extent) -> torch.Tensor:
        """Copy one tensor into the buffer; returns its bytes there."""
        room = self._buckets[extent.bucket][extent.offset_bytes : extent.offset_bytes + extent.num_bytes]
        room.view(self._dtype).view(tensor.shape).copy_(tensor.detach())
        return room

    def _spec(self, name: str, shape: Sequence[int], extent: Extent, checksum: str) -> TensorSpec:
        return TensorSpec(
            name=name,
            dtype=str(self._dtype).removeprefix("torch."),
            shape=tuple(shape),
            bucket=extent.bucket,
            offset_bytes=extent.offset_bytes,
            num_bytes=extent.num_bytes,
            checksum=checksum,
        )


def _digest(data: torch.Tensor) -> str:
    return xxhash.xxh3_64_hexdigest(data.numpy().data)
