"""The learner's end of the weight broadcast: cast, lay out in buckets, digest, announce, send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.learner.broadcast.group import SenderGroup
from rayzero.services.schema.broadcast.nccl import Nccl
from rayzero.services.schema.broadcast.transport import Transport
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.messages import Rendezvous, WeightManifest

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
        device: torch.device | str = "cpu",
        transport: Transport = "auto",
    ) -> None:
        """`dtype` is the engines'; `host` the address at which receivers reach this process; `device` the learner's.

        Each receiver is served by the fastest link that there is (services/schema/broadcast/transport.py), or by
        `transport`. With `share_memory` off, receivers on this machine are treated as if they were elsewhere.
        """
        self._host, self._deadline_s = host, deadline_s
        self._share_memory, self._transport = share_memory, transport
        # With its number: NCCL tells cuda from cuda:0.
        self._device = torch.zeros(0, device=device).device
        self._buffer = SendBuffer(dtype, bucket_bytes)
        self._group: SenderGroup | None = None

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
            num_bytes=self._buffer.memory.numel(),
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

    def broadcast(self) -> None:
        """Send what was prepared to all receivers at once, after each has said that it is ready.

        Raises:
            WeightSyncError: names the ranks that are not ready; or a receiver died within. Then open anew.
        """
        if self._buffer.policy_version is None:
            raise WeightSyncError("nothing to broadcast: prepare weights first")
        with self._closing_on_failure() as group:
            group.await_ready(self._buffer.policy_version)
            group.send(self._buffer)

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
