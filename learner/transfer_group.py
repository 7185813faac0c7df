"""The sending end of the transfer group: rank 0, outside torch's global process groups."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from learner.shared_buffer import SharedBuffer
from services.schema.errors import WeightSyncError
from services.schema.messages import Rendezvous
from services.schema.wire import (
    GROUP_PREFIX,
    LOCAL,
    PROBE_KEY,
    REMOTE_KEY,
    SharedBufferName,
    buffer_key,
    joined_key,
    ready_key,
)

DISTRIBUTED: Any = torch.distributed
"""Untyped: torch's stubs leave its gloo group and its stores out."""

POLL_S = 0.001


class SenderGroup:
    """Serves the store where the ranks meet, and sends to all of them at once. Every wait has a deadline."""

    def __init__(self, host: str, num_receivers: int, deadline_s: float, *, share_memory: bool = True) -> None:
        """Listen on a free port of `host`, an address that the receivers can reach."""
        self._timeout = timedelta(seconds=deadline_s)
        self._deadline_s = deadline_s
        self._store = DISTRIBUTED.TCPStore(host, 0, None, True, self._timeout, wait_for_workers=False)
        self._probe = SharedBuffer(0)
        if not share_memory:
            self._probe.close()  # nobody finds it, so everybody is remote
        self._store.set(PROBE_KEY, str(self._probe.name))
        self._group: Any = None
        self._met = False
        self._aborted = threading.Event()
        self.rendezvous = Rendezvous(host=host, port=self._store.port, world_size=num_receivers + 1)

    def accept(self) -> None:
        """Wait for every receiver, then connect to those on other machines.

        Raises:
            WeightSyncError: names the ranks that did not come.
        """
        keys = {rank: joined_key(rank) for rank in self._receivers}
        self._wait_for(keys, "did not join the transfer group")
        remote = [rank for rank, key in keys.items() if self._store.get(key).decode() != LOCAL]
        self._store.set(REMOTE_KEY, ",".join(map(str, remote)))
        if remote:
            self._connect(1 + len(remote))
        self._met = True

    def await_ready(self, policy_version: int) -> None:
        """The handshake before a broadcast: a receiver that is not there is named now, not waited for within it.

        Raises:
            WeightSyncError: names the ranks that are not ready.
        """
        if not self._met:
            raise WeightSyncError("the transfer group has not met: accept it first")
        keys = {rank: ready_key(policy_version, rank) for rank in self._receivers}
        self._wait_for(keys, f"not ready for version {policy_version}")
        for key in keys.values():
            self._store.delete_key(key)

    def publish(self, policy_version: int, name: SharedBufferName) -> None:
        """Tell receivers on this machine where the buckets lie."""
        self._store.set(buffer_key(policy_version), str(name))

    def send(self, bucket: torch.Tensor) -> None:
        """Broadcast one bucket to the receivers on other machines.

        Raises:
            WeightSyncError: a receiver died or did not take it in time. The group cannot be used again.
        """
        if self._group is None:
            return
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = 0
        try:
            self._group.broadcast([bucket], options).wait()
        except RuntimeError as error:
            raise WeightSyncError(f"the broadcast broke off, a receiver has died or hangs: {error}") from None

    def abort(self) -> None:
        """From another thread: nobody waits any longer for receivers that have not answered."""
        self._aborted.set()

    def close(self) -> None:
        """Hang up. Receivers that still wait get an error."""
        self._probe.close()
        if self._group is not None:
            self._group.shutdown()
            self._group = None
        self._store = None

    @property
    def _receivers(self) -> range:
        return range(1, self.rendezvous.world_size)

    def _connect(self, world_size: int) -> None:
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = self._timeout
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname=self.rendezvous.host)]
        store = DISTRIBUTED.PrefixStore(GROUP_PREFIX, self._store)
        try:
            self._group = DISTRIBUTED.ProcessGroupGloo(store, 0, world_size, options)
        except RuntimeError as error:
            raise WeightSyncError(f"the transfer group could not be connected: {error}") from None

    def _wait_for(self, keys: dict[int, str], what: str) -> None:
        give_up = time.monotonic() + self._deadline_s
        missing = dict(keys)
        while missing:
            missing = {rank: key for rank, key in missing.items() if not self._store.check([key])}
            ranks = ", ".join(map(str, missing))
            if missing and self._aborted.is_set():
                raise WeightSyncError(f"the transfer was given up before rank {ranks} came")
            if missing and time.monotonic() > give_up:
                raise WeightSyncError(f"rank {ranks} {what} in {self._deadline_s:g} s")
            if missing:
                time.sleep(POLL_S)
