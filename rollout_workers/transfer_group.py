"""The receiving end of the transfer group: outside torch's global process groups, every wait with a deadline."""

from __future__ import annotations

import mmap
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from services.schema.errors import WeightSyncError
from services.schema.messages import Rendezvous
from services.schema.wire import (
    GROUP_PREFIX,
    LOCAL,
    PROBE_KEY,
    REMOTE,
    REMOTE_KEY,
    SharedBufferName,
    address_towards,
    buffer_key,
    joined_key,
    ready_key,
    remote_ranks,
)

DISTRIBUTED: Any = torch.distributed
"""Untyped: torch's stubs leave its gloo group and its stores out."""


class ReceiverGroup:
    """One receiver's seat in a transfer group: on the learner's machine it reads the learner's buffer, elsewhere it
    takes part in a gloo broadcast."""

    def __init__(self, rendezvous: Rendezvous, rank: int, deadline_s: float) -> None:
        """Find the learner and meet the peers; returns once all are there.

        Raises:
            WeightSyncError: the learner, or a peer, did not come in time.
        """
        self.rank = rank
        self._where = f"rank {rank} of the transfer group at {rendezvous.host}:{rendezvous.port}"
        self._group: Any = None
        self._mapped: tuple[SharedBufferName, torch.Tensor] | None = None
        timeout = timedelta(seconds=deadline_s)
        try:
            self._store = DISTRIBUTED.TCPStore(
                rendezvous.host, rendezvous.port, None, False, timeout, wait_for_workers=False
            )
            self.is_local = SharedBufferName.parse(self._store.get(PROBE_KEY).decode()).is_here()
            self._store.set(joined_key(rank), LOCAL if self.is_local else REMOTE)
            remote = remote_ranks(self._store.get(REMOTE_KEY).decode())
            if not self.is_local:
                self._connect(rendezvous, 1 + remote.index(rank), 1 + len(remote), timeout)
        except RuntimeError as error:
            raise WeightSyncError(f"{self._where} could not meet its peers in {deadline_s:g} s: {error}") from None

    def announce(self, policy_version: int) -> None:
        """Tell the learner that this receiver is about to take a broadcast."""
        try:
            self._store.set(ready_key(policy_version, self.rank), "")
        except RuntimeError as error:
            raise WeightSyncError(f"{self._where} lost the learner: {error}") from None

    def shared_buffer(self, policy_version: int, deadline_s: float) -> torch.Tensor:
        """The learner's own buffer, where it is on this machine (`is_local`), once it holds the version. Read only.

        Raises:
            WeightSyncError: the learner did not say where it is, or is gone.
        """
        key = buffer_key(policy_version)
        try:
            self._store.wait([key], timedelta(seconds=max(deadline_s, 0.001)))
            name = SharedBufferName.parse(self._store.get(key).decode())
            if self._mapped is None or self._mapped[0] != name:
                self._mapped = (name, _map(name))
        except (RuntimeError, OSError) as error:
            raise WeightSyncError(f"{self._where} did not get its weights in time: {error}") from None
        return self._mapped[1]

    def receive(self, bucket: torch.Tensor, deadline_s: float) -> None:
        """Fill one bucket with what rank 0 broadcasts.

        Raises:
            WeightSyncError: nothing came in time, or a peer died. The group cannot be used again.
        """
        self._group.set_timeout(timedelta(seconds=max(deadline_s, 0.001)))
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = 0
        try:
            self._group.broadcast([bucket], options).wait()
        except RuntimeError as error:
            raise WeightSyncError(f"{self._where} did not get its weights in time: {error}") from None

    def close(self) -> None:
        """Hang up. Peers that still wait for this one get an error."""
        if self._group is not None:
            self._group.shutdown()
        self._group = self._store = self._mapped = None

    def _connect(self, rendezvous: Rendezvous, rank: int, world_size: int, timeout: timedelta) -> None:
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = timeout
        address = address_towards(rendezvous.host, rendezvous.port)
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname=address)]
        store = DISTRIBUTED.PrefixStore(GROUP_PREFIX, self._store)
        self._group = DISTRIBUTED.ProcessGroupGloo(store, rank, world_size, options)


def _map(name: SharedBufferName) -> torch.Tensor:
    descriptor = os.open(name.path, os.O_RDWR)
    try:
        return torch.frombuffer(mmap.mmap(descriptor, name.num_bytes), dtype=torch.uint8)
    finally:
        os.close(descriptor)
