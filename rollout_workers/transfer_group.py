"""The receiving end of the learner's broadcast group: plain gloo, outside torch's global process groups."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from services.schema.errors import WeightSyncError
from services.schema.messages import Rendezvous
from services.schema.wire import GROUP_PREFIX, address_towards, joined_key, ready_key

DISTRIBUTED: Any = torch.distributed
"""Untyped: torch's stubs leave its gloo group and its stores out."""


class ReceiverGroup:
    """One receiver's seat in a transfer group. Every wait ends at the deadline it was made with."""

    def __init__(self, rendezvous: Rendezvous, rank: int, deadline_s: float) -> None:
        """Find the learner and connect to all peers; returns once all are there.

        Raises:
            WeightSyncError: the learner, or a peer, did not come in time.
        """
        self.rank = rank
        self._where = f"rank {rank} of the transfer group at {rendezvous.host}:{rendezvous.port}"
        timeout = timedelta(seconds=deadline_s)
        try:
            self._store = DISTRIBUTED.TCPStore(
                rendezvous.host, rendezvous.port, None, False, timeout, wait_for_workers=False
            )
            self._store.set(joined_key(rank), "")
            self._group = DISTRIBUTED.ProcessGroupGloo(
                DISTRIBUTED.PrefixStore(GROUP_PREFIX, self._store),
                rank,
                rendezvous.world_size,
                self._options(rendezvous, timeout),
            )
        except RuntimeError as error:
            raise WeightSyncError(f"{self._where} could not meet its peers in {deadline_s:g} s: {error}") from None

    def announce(self, policy_version: int) -> None:
        """Tell the learner that this receiver is about to take a broadcast."""
        try:
            self._store.set(ready_key(policy_version, self.rank), "")
        except RuntimeError as error:
            raise WeightSyncError(f"{self._where} lost the learner: {error}") from None

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
            raise WeightSyncError(f"{self._where} did not get its bucket in time: {error}") from None

    def close(self) -> None:
        """Hang up. Peers that still wait for this one get an error."""
        self._group.shutdown()
        del self._group, self._store

    @staticmethod
    def _options(rendezvous: Rendezvous, timeout: timedelta) -> Any:
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = timeout
        address = address_towards(rendezvous.host, rendezvous.port)
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname=address)]
        return options
