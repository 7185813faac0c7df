"""The sending end of the transfer group: rank 0, outside torch's global process groups."""

from __future__ import annotations

import os
import socket
import threading
import time

import torch

from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.learner.broadcast.gpu_links import IpcSender, NcclSender
from rayzero.learner.broadcast.links import CopyingSender, GlooSender, MemorySender, SendingLink, SendingTime
from rayzero.learner.broadcast.shared_memory import SharedBuffer
from rayzero.learner.broadcast.stream import BucketStream
from rayzero.services.schema.broadcast.nccl import NcclLibrary
from rayzero.services.schema.broadcast.store_server import StoreServer
from rayzero.services.schema.broadcast.transport import Peer, Route, Transport, choose_link, links_text
from rayzero.services.schema.broadcast.wire import (
    LINKS_KEY,
    PROBE_KEY,
    bucket_key,
    delta_key,
    digests_text,
    joined_key,
    ready_key,
    taken_key,
)
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import Rendezvous

POLL_S = 0.001


class SenderGroup:
    """Serves the store where the ranks meet, and sends to all of them at once. Every wait has a deadline."""

    def __init__(
        self,
        host: str,
        num_receivers: int,
        deadline_s: float,
        *,
        nccl: NcclLibrary,
        device: torch.device,
        transport: Transport = "auto",
        share_memory: bool = True,
        num_bytes: int = 0,
    ) -> None:
        """Listen on a free port of `host`, an address that the receivers can reach. `device`: the learner's;
        `num_bytes`: what will be sent, as far as is known."""
        self._deadline_s, self._nccl, self._device, self._transport = deadline_s, nccl, device, transport
        self._store = StoreServer(host, deadline_s)
        self._probe = SharedBuffer(0)
        if not share_memory:
            self._probe.close()  # without it every receiver counts as being on another machine
        self._store.set(PROBE_KEY, str(self._probe.name))
        self._peers: dict[int, Peer] = {}
        self._mapped: dict[SendingLink, list[int]] = {}
        """Links to receivers that look at what is sent where it lies, with their ranks."""
        self._copied: dict[CopyingSender, list[int]] = {}
        """Links to those that get the bytes."""
        self._staged: dict[int, str] = {}
        """By rank: what it said when it was ready, the content that a delta could start from."""
        self._aborted, self._left = threading.Event(), SendingTime(deadline_s)
        self.rendezvous = Rendezvous(
            host=host,
            port=self._store.port,
            world_size=num_receivers + 1,
            num_bytes=num_bytes,
            secret=self._store.secret,
        )

    def accept(self) -> None:
        """Wait for every receiver, tell each how it will be served, and connect to those that need it.

        Raises:
            WeightSyncError: names the ranks that did not come, or cannot be reached in the way asked for.
        """
        self._left.restart()
        keys = {rank: joined_key(rank) for rank in self._receivers}
        self._wait_for(keys, "did not join the transfer group")
        self._peers = {rank: Peer.parse(self._store.get(key)) for rank, key in keys.items()}
        me = this_peer(self._device)
        links = {rank: choose_link(me, peer, self._transport) for rank, peer in self._peers.items()}
        self._store.set(LINKS_KEY, links_text(links))
        for kind in Route:
            if served := {rank: peer for rank, peer in self._peers.items() if links[rank] is kind}:
                self._connect(kind, served)

    def await_ready(self, policy_version: int) -> None:
        """The handshake before a broadcast: a receiver that is not there is named now, not waited for within it.

        Raises:
            WeightSyncError: names the ranks that are not ready.
        """
        if not self._mapped and not self._copied:
            raise WeightSyncError("the transfer group has not met: accept it first")
        self._left.restart()
        keys = {rank: ready_key(policy_version, rank) for rank in self._receivers}
        self._wait_for(keys, f"not ready for version {policy_version}")
        for rank, key in keys.items():
            self._staged[rank] = self._store.get(key).decode()
            self._store.delete_key(key)

    def send(self, buffer: SendBuffer) -> int:
        """Give every receiver what the buffer holds, or what it lacks of it; returns the most bytes that went to one.

        Raises:
            WeightSyncError: a receiver died or did not take it in time. The group cannot be used again.
        """
        for mapped in self._mapped:
            mapped.send(buffer)
        sent = [self._send_copied(link, ranks, buffer) for link, ranks in self._copied.items()]
        return max([*sent, buffer.memory.numel() if self._mapped else 0])

    def send_bucket(self, stream: BucketStream, index: int) -> None:
        """Give every receiver one bucket of a streamed broadcast. Raises as `send`."""
        assert stream.manifest is not None
        for mapped in self._mapped:
            mapped.send_bucket(stream, index)
        self._store.set(bucket_key(stream.manifest.policy_version, index), digests_text(stream.digests(index)))
        for link in self._copied:
            link.send_bucket(stream, index)

    def await_taken(self, policy_version: int, index: int) -> None:
        """Wait until no receiver looks at a streamed bucket where it lies any more.

        Raises:
            WeightSyncError: names the ranks that do not say so.
        """
        keys = {rank: taken_key(policy_version, index, rank) for ranks in self._mapped.values() for rank in ranks}
        self._wait_for(keys, f"did not take bucket {index} of version {policy_version}")
        for key in keys.values():
            self._store.delete_key(key)

    def forget(self, policy_version: int, num_buckets: int) -> None:
        """All receivers are done with a streamed version: its digests are not asked for any more."""
        for index in range(num_buckets):
            self._store.delete_key(bucket_key(policy_version, index))

    def abort(self) -> None:
        """From another thread: end the wait for receivers that have not answered."""
        self._aborted.set()

    def close(self) -> None:
        """Hang up. Receivers that still wait get an error, and so does who waits for them here."""
        self._aborted.set()
        self._probe.close()
        links = [*self._mapped, *self._copied]
        self._mapped, self._copied = {}, {}
        for link in links:
            link.close()
        self._store.close()

    @property
    def _receivers(self) -> range:
        return range(1, self.rendezvous.world_size)

    def _connect(self, kind: Route, served: dict[int, Peer]) -> None:
        ranks = list(served)
        if kind is Route.MEMORY:
            self._mapped[MemorySender(self._store)] = ranks
        elif kind is Route.IPC:
            self._mapped[IpcSender(self._store, served)] = ranks
        elif kind is Route.GLOO:
            self._copied[GlooSender(self._store, self.rendezvous.host, ranks, self._left)] = ranks
        else:
            nccl = NcclSender(self._nccl, self._store, served, self._device, self._deadline_s, self._aborted)
            self._copied[nccl] = ranks

    def _send_copied(self, link: CopyingSender, ranks: list[int], buffer: SendBuffer) -> int:
        """Bytes that went to each of a link's `ranks`."""
        version, delta = int(buffer.policy_version or 0), buffer.delta
        if delta is None:
            link.send(buffer)
            return buffer.memory.numel()
        fits = all(self._staged[rank] == delta.since for rank in ranks)
        for rank in ranks:
            self._store.set(delta_key(version, rank), str(delta.message.numel() if fits else 0))
        if not fits:
            link.send(buffer)
            return buffer.memory.numel()
        link.send_delta(delta, version)
        return delta.message.numel()

    def _wait_for(self, keys: dict[int, str], what: str) -> None:
        give_up = time.monotonic() + self._deadline_s
        missing = dict(keys)
        while missing:
            missing = {rank: key for rank, key in missing.items() if not self._store.check([key])}
            names = ", ".join(
                self._peers[rank].named(rank) if rank in self._peers else f"rank {rank}" for rank in missing
            )
            if missing and self._aborted.is_set():
                raise WeightSyncError(f"the transfer was given up before {names} came")
            if missing and time.monotonic() > give_up:
                raise WeightSyncError(f"{names} {what} in {self._deadline_s:g} s")
            if missing:
                time.sleep(POLL_S)


def this_peer(device: torch.device) -> Peer:
    """How this process describes itself."""
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    return Peer(host=socket.gethostname(), process=os.getpid(), gpu=gpu, sees_learner=True)
