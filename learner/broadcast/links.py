"""The sending end of each way to a receiver on the host: shared memory, and a gloo broadcast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch.distributed

from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.learner.broadcast.delta import Delta
from rayzero.learner.broadcast.stream import BucketStream
from rayzero.services.schema.broadcast.store import Store, as_torch_store
from rayzero.services.schema.broadcast.wire import GROUP_PREFIX, buffer_key
from rayzero.services.schema.errors import WeightSyncError

DISTRIBUTED: Any = torch.distributed
"""Untyped: torch's stubs leave its gloo group out."""


class SendingTime:
    """What is left of the time that one broadcast may take, all its buckets together."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s, self._give_up = deadline_s, 0.0
        self.restart()

    def restart(self) -> None:
        """A broadcast begins."""
        self._give_up = time.monotonic() + self._deadline_s

    @property
    def delta(self) -> timedelta:
        """More than nothing, which gloo would take for no limit."""
        return timedelta(seconds=max(self._give_up - time.monotonic(), 0.001))


class SendingLink(Protocol):
    """All receivers that are served in one way."""

    def send(self, buffer: SendBuffer) -> None:
        """Give them what the buffer holds; every receiver has said that it is ready.

        Raises:
            WeightSyncError: a receiver died, or did not take it in time. The group cannot be used again.
        """
        ...

    def send_bucket(self, stream: BucketStream, index: int) -> None:
        """The same of one bucket of a streamed broadcast. Links whose receivers map the rooms only see to it that it
        lies there; the transfer group lets them know, and they say when they are done.
        """
        ...

    def close(self) -> None:
        """Hang up; also from another thread, to end a `send` that waits for the dead."""
        ...


class CopyingSender(SendingLink, Protocol):
    """Receivers that get the bytes, and keep them."""

    def send_delta(self, delta: Delta, policy_version: int) -> None:
        """As `send`, what is new in `policy_version`: every receiver holds the version that the delta starts from."""
        ...


class MemorySender:
    """Receivers on this machine: told where the buckets lie, they read them there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def send(self, buffer: SendBuffer) -> None:
        """See `SendingLink`."""
        buffer.host_buckets  # noqa: B018 - a GPU's weights are copied to the host here
        self._store.set(buffer_key(int(buffer.policy_version or 0)), str(buffer.host_name))

    def send_bucket(self, stream: BucketStream, index: int) -> None:
        """See `SendingLink`."""
        stream.host_bucket(index)
        if index == 0:
            assert stream.manifest is not None
            self._store.set(buffer_key(stream.manifest.policy_version), str(stream.host.name))

    def close(self) -> None:
        """Nothing is open."""


class GlooSender:
    """Receivers elsewhere, as one gloo group over the store."""

    def __init__(self, store: Store, host: str, ranks: Sequence[int], left: SendingTime) -> None:
        self._left = left
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = left.delta
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname=host)]
        self._store = as_torch_store(store, DISTRIBUTED.Store)
        try:
            self._group = DISTRIBUTED.ProcessGroupGloo(
                DISTRIBUTED.PrefixStore(GROUP_PREFIX, self._store), 0, 1 + len(ranks), options
            )
        except RuntimeError as error:
            raise WeightSyncError(f"the transfer group could not be connected: {error}") from None

    def send(self, buffer: SendBuffer) -> None:
        """See `SendingLink`."""
        for bucket in buffer.host_buckets:
            self._broadcast(bucket)

    def send_delta(self, delta: Delta, policy_version: int) -> None:
        """See `CopyingSender`."""
        self._broadcast(delta.message.cpu())

    def send_bucket(self, stream: BucketStream, index: int) -> None:
        """See `SendingLink`."""
        self._broadcast(stream.host_bucket(index))

    def _broadcast(self, bucket: torch.Tensor) -> None:
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = 0
        self._group.set_timeout(self._left.delta)
        try:
            self._group.broadcast([bucket], options).wait()
        except RuntimeError as error:
            raise WeightSyncError(f"the broadcast broke off, a receiver has died or hangs: {error}") from None

    def close(self) -> None:
        """See `SendingLink`."""
        self._group.shutdown()
