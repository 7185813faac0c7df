"""The receiving end of the transfer group: outside torch's global process groups, every wait with a deadline."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.rollout_workers.broadcast.gpu_links import IpcReceiver, NcclReceiver
from rayzero.rollout_workers.broadcast.links import CopyingReceiver, GlooReceiver, MemoryReceiver, ReceivingLink
from rayzero.services.schema.broadcast.store_client import StoreClient
from rayzero.services.schema.broadcast.transport import Peer, Route, parse_links, rank_within
from rayzero.services.schema.broadcast.wire import (
    LINKS_KEY,
    PROBE_KEY,
    SharedBufferName,
    bucket_key,
    delta_key,
    joined_key,
    parse_digests,
    ready_key,
    taken_key,
)
from rayzero.services.schema.errors import TransferLost, WeightSyncError
from rayzero.services.schema.weights import Rendezvous, WeightManifest

CPU = torch.device("cpu")


class ReceiverGroup:
    """One receiver's place in a transfer group, and its way from the learner."""

    def __init__(self, rendezvous: Rendezvous, rank: int, deadline_s: float, device: torch.device = CPU) -> None:
        """Find the learner and meet the peers; returns once all are there. `device`: what the model lies on.

        Raises:
            TransferLost: the learner, or a peer, did not come in time.
        """
        self.rank = rank
        self._link: ReceivingLink | None = None
        self._where = f"rank {rank} of the transfer group at {rendezvous.address}"
        timeout = timedelta(seconds=deadline_s)
        with self._explained(f"could not meet its peers in {deadline_s:g} s"):
            self._store = StoreClient(rendezvous.host, rendezvous.port, rendezvous.secret, deadline_s)
            probe = SharedBufferName.parse(self._store.get(PROBE_KEY).decode())
            me = this_peer(device, probe.is_here())
            self._where = f"{me.named(rank)} of the transfer group at {rendezvous.address}"
            self._store.set(joined_key(rank), str(me))
            links = parse_links(self._store.get(LINKS_KEY))
            self.kind = links[rank]
            rank_and_size = rank_within(links, rank)
            if self.kind is Route.MEMORY:
                self._link = MemoryReceiver(self._store)
            elif self.kind is Route.GLOO:
                self._link = GlooReceiver(self._store, rendezvous, rank_and_size, timeout)
            elif self.kind is Route.IPC:
                self._link = IpcReceiver(self._store, rank, device)
            else:
                self._link = NcclReceiver(self._store, rank, rank_and_size, device, deadline_s)

    def announce(self, policy_version: int, staged: str | None = None) -> None:
        """Tell the learner that this receiver is about to take a broadcast, and what a delta may start from."""
        with self._explained("lost the learner"):
            self._store.set(ready_key(policy_version, self.rank), staged or "")

    def take(
        self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool = True
    ) -> Iterator[int]:
        """Bucket after bucket of one broadcast, each when it lies in `staging`; see `ReceivingLink`.

        Raises:
            TransferLost: it did not come in time, or a peer died. The group cannot be used again.
        """
        assert self._link is not None
        give_up = time.monotonic() + deadline_s
        with self._explained("did not get its weights in time"):
            if isinstance(self._link, CopyingReceiver) and (num_bytes := self._delta_bytes(manifest, deadline_s)):
                delta = self._link.take_delta(manifest.policy_version, num_bytes, give_up - time.monotonic())
                staging.change(manifest, delta)
                yield from range(len(manifest.bucket_bytes))
            else:
                yield from self._link.take(manifest, staging, give_up - time.monotonic(), keep=keep)

    def _delta_bytes(self, manifest: WeightManifest, deadline_s: float) -> int:
        """Of the delta that will be sent; 0: the whole version will be."""
        if manifest.since is None:
            return 0
        key = delta_key(manifest.policy_version, self.rank)
        self._store.wait([key], timedelta(seconds=max(deadline_s, 0.001)))
        return int(self._store.get(key))

    @property
    def maps(self) -> bool:
        """Whether it reads what the learner has where it lies there: it needs no room of its own for buckets."""
        return self.kind in (Route.MEMORY, Route.IPC)

    def take_bucket(
        self, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float
    ) -> tuple[torch.Tensor, list[str]]:
        """One bucket of a streamed broadcast, [bytes] uint8 (see `ReceivingLink`), and its digests. Buckets come in
        order; `release` each. Raises as `take`."""
        link = self._link
        if link is None:
            raise WeightSyncError(f"{self._where} has left it")
        give_up = time.monotonic() + deadline_s
        key = bucket_key(manifest.policy_version, index)
        with self._explained(f"did not get bucket {index} of {len(manifest.bucket_bytes)} in time"):
            self._store.wait([key], timedelta(seconds=max(deadline_s, 0.001)))
            digests = parse_digests(self._store.get(key))
            return link.take_bucket(manifest, index, room, give_up - time.monotonic()), digests

    def release(self, manifest: WeightManifest, index: int) -> None:
        """Nothing of a bucket is looked at any more."""
        if self.maps:
            with self._explained("lost the learner"):
                self._store.set(taken_key(manifest.policy_version, index, self.rank), "")

    def close(self) -> None:
        """Hang up. Peers that still wait for this one get an error."""
        if self._link is not None:
            self._link.close()
        self._link = None
        self._store.close()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except WeightSyncError:
            raise
        except (RuntimeError, OSError) as error:  # TimeoutError is an OSError
            raise TransferLost(f"{self._where} {what}: {error}") from None


def this_peer(device: torch.device, sees_learner: bool) -> Peer:
    """How this process describes itself."""
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    return Peer(host=socket.gethostname(), process=os.getpid(), gpu=gpu, sees_learner=sees_learner)
