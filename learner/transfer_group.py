"""The sending end of the broadcast group: rank 0, plain gloo, outside torch's global process groups."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from services.schema.errors import WeightSyncError
from services.schema.messages import Rendezvous
from services.schema.wire import GROUP_PREFIX, joined_key, ready_key

DISTRIBUTED: Any = torch.distributed
"""Untyped: torch's stubs leave its gloo group and its stores out."""

POLL_S = 0.001


class SenderGroup:
    """Serves the store where the ranks meet, and sends to all of them at once. Every wait has a deadline."""

    def __init__(self, host: str, num_receivers: int, deadline_s: float) -> None:
        """Listen on a free port of `host`, an address that the receivers can reach."""
        self._timeout = timedelta(seconds=deadline_s)
        self._deadline_s = deadline_s
        self._store = DISTRIBUTED.TCPStore(host, 0, None, True, self._timeout, wait_for_workers=False)
        self._group: Any = None
        self.rendezvous = Rendezvous(host=host, port=self._store.port, world_size=num_receivers + 1)

    def accept(self) -> None:
        """Wait for every receiver, then connect to all.

        Raises:
            WeightSyncError: names the ranks that did not come.
        """
        self._wait_for({rank: joined_key(rank) for rank in self._receivers}, "did not join the transfer group")
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = self._timeout
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname=self.rendezvous.host)]
        try:
            self._group = DISTRIBUTED.ProcessGroupGloo(
                DISTRIBUTED.PrefixStore(GROUP_PREFIX, self._store), 0, self.rendezvous.world_size, options
            )
        except RuntimeError as error:
            raise WeightSyncError(f"the transfer group could not be connected: {error}") from None

    def await_ready(self, policy_version: int) -> None:
        """The handshake before a broadcast: a receiver that is not there is named now, not waited for within it.

        Raises:
            WeightSyncError: names the ranks that are not ready.
        """
        keys = {rank: ready_key(policy_version, rank) for rank in self._receivers}
        self._wait_for(keys, f"not ready for version {policy_version}")
        for key in keys.values():
            self._store.delete_key(key)

    def send(self, bucket: torch.Tensor) -> None:
        """Broadcast one bucket.

        Raises:
            WeightSyncError: a receiver died or did not take it in time. The group cannot be used again.
        """
        if self._group is None:
            raise WeightSyncError("the transfer group has not met: accept it first")
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = 0
        try:
            self._group.broadcast([bucket], options).wait()
        except RuntimeError as error:
            raise WeightSyncError(f"the broadcast broke off, a receiver has died or hangs: {error}") from None

    def close(self) -> None:
        """Hang up. Receivers that still wait get an error."""
        if self._group is not None:
            self._group.shutdown()
            self._group = None

    @property
    def _receivers(self) -> range:
        return range(1, self.rendezvous.world_size)

    def _wait_for(self, keys: dict[int, str], what: str) -> None:
        give_up = time.monotonic() + self._deadline_s
        missing = dict(keys)
        while missing:
            missing = {rank: key for rank, key in missing.items() if not self._store.check([key])}
            if missing and time.monotonic() > give_up:
                ranks = ", ".join(map(str, missing))
                raise WeightSyncError(f"rank {ranks} {what} in {self._deadline_s:g} s")
            if missing:
                time.sleep(POLL_S)
