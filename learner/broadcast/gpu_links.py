"""The sending end between GPUs: an NCCL broadcast, and CUDA IPC where both share one GPU.

NCCL's waits know no deadline and name no rank. Here each runs on a thread of its own, bounded; what has not ended by
then is aborted, and the store tells which ranks did not get through. An aborted group is built anew by the next sync.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.learner.broadcast.delta import Delta
from rayzero.learner.broadcast.stream import BucketStream
from rayzero.services.schema.broadcast.nccl import NcclLibrary
from rayzero.services.schema.broadcast.nccl_rank import NcclRank
from rayzero.services.schema.broadcast.store import Store
from rayzero.services.schema.broadcast.transport import Peer
from rayzero.services.schema.broadcast.wire import NCCL_KEY, connected_key, ipc_key, received_key
from rayzero.services.schema.errors import WeightSyncError


class NcclSender:
    """Receivers on GPUs of their own, as one NCCL group."""

    def __init__(
        self,
        library: NcclLibrary,
        store: Store,
        peers: Mapping[int, Peer],
        device: torch.device,
        deadline_s: float,
        given_up: threading.Event,
    ) -> None:
        """Connect; `peers` are the receivers of this link by rank of the transfer group.

        When `given_up` is set, a receiver is known to be lost, and nothing waits for it any longer.
        """
        self._store, self._peers, self._deadline_s = store, peers, deadline_s
        self._slot = NcclRank(library, partial(side_stream, device), given_up.is_set)
        with self._explained("the NCCL library does not answer"):
            unique_id = self._slot.new_id(deadline_s)
        store.set(NCCL_KEY, unique_id.hex())
        with self._explained("did not connect over NCCL", lambda rank: store.check([connected_key(rank)])):
            probe = torch.zeros(1, dtype=torch.uint8, device=device)
            self._slot.connect(unique_id, 0, 1 + len(peers), probe, deadline_s)

    def send(self, buffer: SendBuffer) -> None:
        """See `SendingLink`."""
        # On another stream than the buffer was filled on; but to fill it ends with a wait for its digests.
        self._broadcast(buffer.memory, int(buffer.policy_version or 0), 1)

    def send_delta(self, delta: Delta, policy_version: int) -> None:
        """See `CopyingSender`. As with a buffer, making it ended with a wait."""
        self._broadcast(delta.message, policy_version, 1)

    def send_bucket(self, stream: BucketStream, index: int) -> None:
        """See `SendingLink`."""
        assert stream.manifest is not None
        self._broadcast(stream.bucket(index), stream.manifest.policy_version, index + 1)

    def _broadcast(self, memory: torch.Tensor, version: int, count: int) -> None:
        """The `count`th message of a version."""

        def has_it(rank: int) -> bool:
            key = received_key(version, rank)
            return self._store.check([key]) and int(self._store.get(key)) >= count

        with self._explained(f"did not take version {version} over NCCL", has_it):
            self._slot.broadcast(memory, self._deadline_s)

    def close(self) -> None:
        """See `SendingLink`."""
        self._slot.close()

    @contextmanager
    def _explained(self, what: str, is_through: Callable[[int], bool] = lambda rank: True) -> Iterator[None]:
        """`is_through`: whether a rank says that it got through; those that do not are named."""
        try:
            yield
        except TimeoutError:
            names = ", ".join(peer.named(rank) for rank, peer in self._peers.items() if not is_through(rank))
            raise WeightSyncError(f"{names} {what} in {self._deadline_s:g} s".strip()) from None
        except Exception as error:
            raise WeightSyncError(f"NCCL failed: {error}") from None


class IpcSender:
    """Receivers on the learner's own GPU: they map its buffer. Nothing is copied on the way."""

    def __init__(self, store: Store, peers: Mapping[int, Peer]) -> None:
        self._store, self._peers = store, peers
        self._exported: weakref.ref[torch.Tensor] | None = None
        """The buffer that the handles are of. Weak: one that has been replaced is to be freed."""
        self._handles: dict[int, bytes] = {}

    def send(self, buffer: SendBuffer) -> None:
        """See `SendingLink`."""
        self._offer(buffer.memory, int(buffer.policy_version or 0))

    def send_bucket(self, stream: BucketStream, index: int) -> None:
        """See `SendingLink`. To fill a bucket ends with a wait for its digests, so it is there."""
        if index == 0:
            assert stream.manifest is not None
            self._offer(stream.memory, stream.manifest.policy_version)

    def _offer(self, memory: torch.Tensor, version: int) -> None:
        if self._exported is None or self._exported() is not memory:
            self._exported = weakref.ref(memory)
            # torch counts references across processes: one export for every process that will let go of it.
            self._handles = {rank: _export(memory) for rank in self._peers}
        torch.cuda.current_stream(memory.device).synchronize()
        for rank, handle in self._handles.items():
            self._store.set(ipc_key(version, rank), handle)

    def close(self) -> None:
        """Receivers that have mapped the buffer keep it until they let go."""
        self._exported, self._handles = None, {}


def side_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream beside the learner's; `device` becomes this thread's GPU, for a new thread begins on GPU 0."""
    torch.cuda.set_device(device)
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _export(memory: torch.Tensor) -> bytes:
    """The arguments of torch's `rebuild_cuda_tensor`, but for the classes: those the receiver knows."""
    from torch.multiprocessing.reductions import reduce_tensor

    _, arguments = reduce_tensor(memory)  # type: ignore[no-untyped-call]
    _, size, stride, offset, _, _, _, handle, num_bytes, storage_offset, _, counter, counter_at, event, waits = (
        arguments
    )
    fields = {
        "size": list(size),
        "stride": list(stride),
        "offset": offset,
        "handle": handle.hex(),
        "num_bytes": num_bytes,
        "storage_offset": storage_offset,
        "counter": counter.hex(),
        "counter_offset": counter_at,
        "event": event.hex(),
        "waits_for_event": waits,
    }
    return json.dumps(fields).encode()
