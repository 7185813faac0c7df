"""The learner's end of the weight broadcast: cast, lay out in buckets, digest, announce, send; or stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.learner.broadcast.group import SenderGroup
from rayzero.learner.broadcast.stream import BucketStream, Outline
from rayzero.services.schema.broadcast.nccl import Nccl
from rayzero.services.schema.broadcast.transport import Transport
from rayzero.services.schema.broadcast.wire import BUCKET_BYTES, NUM_ROOMS
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import Rendezvous, WeightManifest


class WeightSender:
    """Sends the policy to all receivers at once: open, accept, then for every version prepare and broadcast; or, where
    there is no room for all of it, announce and stream.

    Blocks: call it from a thread where an event loop must go on. Not thread-safe.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        *,
        host: str = "127.0.0.1",
        deadline_s: float = 300.0,
        bucket_bytes: int | None = None,
        share_memory: bool = True,
        device: torch.device | str = "cpu",
        transport: Transport = "auto",
        overlaps: bool = True,
        makes_deltas: bool = False,
    ) -> None:
        """`dtype` is the engines'; `host` the address at which receivers reach this process; `device` the learner's.
        `overlaps`: a streamed bucket is put together while the one before is on its way. Not where the ranks that do so
        are on the receivers' GPUs: the kernels of both would wait for each other. `makes_deltas`: receivers that copy
        what is prepared, and hold the version before, are sent what is new where that is little.

        Each receiver is served by the fastest link that there is (services/schema/broadcast/transport.py), or by
        `transport`. With `share_memory` off, receivers on this machine are treated as if they were elsewhere.
        """
        self._host, self._deadline_s = host, deadline_s
        self._share_memory, self._transport, self._overlaps = share_memory, transport, overlaps
        # With its number: NCCL tells cuda from cuda:0.
        self._device = torch.zeros(0, device=device).device
        bucket_bytes = bucket_bytes or BUCKET_BYTES[self._device.type]
        self._buffer = SendBuffer(dtype, bucket_bytes, makes_deltas)
        self._stream = BucketStream(dtype, bucket_bytes, self._device)
        self._group: SenderGroup | None = None
        self._streamed: tuple[int, int] | None = None
        """Version and number of buckets that this group was streamed last."""

    def open(self, num_receivers: int) -> Rendezvous:
        """Choose where the transfer group meets, on a port of its own. Ends the group before it, if any."""
        self.close()
        self._group = SenderGroup(
            self._host,
            num_receivers,
            self._deadline_s,
            nccl=Nccl(),
            device=self._device,
            transport=self._transport,
            share_memory=self._share_memory,
            num_bytes=self._stream.manifest.num_bytes if self._stream.manifest else self._buffer.memory.numel(),
        )
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

    def prepare(
        self,
        tensors: Iterable[tuple[str, torch.Tensor]],
        policy_version: int,
        adapter_scaling: float | None = None,
    ) -> WeightManifest:
        """Copy `tensors` (Hugging Face names, any dtype, full and on the learner's device) into the send buffer.

        With `adapter_scaling` they are adapters alone; see `WeightManifest`.
        The policy may change as soon as this returns; `broadcast` may follow, several times if need be. Not before all
        receivers have taken the version before it: those on this machine, or GPU, read it from this buffer.
        """
        return self._buffer.fill(tensors, policy_version, adapter_scaling)

    def broadcast(self) -> int:
        """Send what was prepared to all receivers at once, after each has said that it is ready; returns the most bytes
        that went to one of them.

        Raises:
            WeightSyncError: names the ranks that are not ready; or a receiver died within. Then open anew.
        """
        if self._buffer.policy_version is None:
            raise WeightSyncError("nothing to broadcast: prepare weights first")
        with self._closing_on_failure() as group:
            group.await_ready(self._buffer.policy_version)
            return group.send(self._buffer)

    def announce(self, outline: Outline, policy_version: int, adapter_scaling: float | None = None) -> WeightManifest:
        """Say what `stream` will send: names and shapes of whole tensors, in order. See `prepare`."""
        if self._group is not None and self._streamed is not None:
            # Here, before a receiver can know of it: one that is sent a version again would find the old digests.
            self._group.forget(*self._streamed)
            self._streamed = None
        return self._stream.announce(outline, policy_version, adapter_scaling)

    def stream(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> int:
        """Send what was announced, bucket after bucket: the next is made while one is on its way. Returns its bytes.

        `tensors` (any dtype, whole and on the learner's device) are gone through to their end, even when a receiver is
        lost on the way: other ranks take part in putting each together, and would wait.

        Raises:
            WeightSyncError: as `broadcast`.
        """
        remaining = iter(tensors)
        try:
            # The group is closed first: it ends what the thread waits for.
            with ThreadPoolExecutor(1, "weights-send") as sending, self._closing_on_failure() as group:
                return self._send_buckets(group, remaining, sending)
        finally:
            for _ in remaining:
                pass

    def _send_buckets(
        self, group: SenderGroup, tensors: Iterator[tuple[str, torch.Tensor]], sending: ThreadPoolExecutor
    ) -> int:
        stream, manifest = self._stream, self._stream.manifest
        if manifest is None:
            raise WeightSyncError("nothing to stream: announce weights first")
        version, on_the_way = manifest.policy_version, list[Future[None]]()
        group.await_ready(version)
        self._streamed = version, stream.num_buckets
        for index in range(stream.num_buckets):
            if index >= NUM_ROOMS:
                on_the_way[index - NUM_ROOMS].result()
                group.await_taken(version, index - NUM_ROOMS)
            stream.fill(index, tensors)
            on_the_way.append(sending.submit(group.send_bucket, stream, index))
            if not self._overlaps:
                on_the_way[index].result()
        for index in range(max(stream.num_buckets - NUM_ROOMS, 0), stream.num_buckets):
            on_the_way[index].result()
            group.await_taken(version, index)
        return manifest.num_bytes

    def close(self) -> None:
        """Leave the transfer group."""
        if self._group is not None:
            self._group.close()
            self._group = self._streamed = None

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
