"""The sending end between GPUs: vLLM's packed NCCL broadcast, and CUDA IPC where both share one GPU.

NCCL's waits know no deadline and name no rank. Here each runs on a thread of its own, bounded; what has not ended by
then is aborted, and the store tells which ranks did not get through. An aborted group is built anew by the next sync.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rayzero.learner.broadcast.buffer import SendBuffer
from rayzero.services.schema.broadcast.deadline import bounded
from rayzero.services.schema.broadcast.transport import Peer
from rayzero.services.schema.broadcast.wire import (
    NCCL_KEY,
    PACKED_BUFFERS,
    PACKED_BYTES,
    connected_key,
    ipc_key,
    received_key,
)
from rayzero.services.schema.errors import WeightSyncError


class Communicator(Protocol):
    """vLLM's `PyNcclCommunicator`, as far as its packing code and this file use it."""

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        """Enqueue one broadcast on the current stream."""
        ...

    def destroy(self) -> None:
        """Abort: what waits inside ends, here and at the peers."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NcclLibrary:
    """What is taken from vLLM; learner/broadcast/sender.py fills it in."""

    new_id: Callable[[], bytes]
    """A unique id for a new group."""
    connect: Callable[[bytes, int, int, torch.device], Communicator]
    """(id, rank, world size, device): returns when all ranks have called it."""
    produce: Callable[..., None]
    """vLLM's `packed_nccl_broadcast_producer`."""


class NcclSender:
    """Receivers on GPUs of their own, as one NCCL group."""

    def __init__(
        self,
        library: NcclLibrary,
        store: Any,
        peers: Mapping[int, Peer],
        device: torch.device,
        deadline_s: float,
        given_up: threading.Event,
    ) -> None:
        """Connect; `peers` are the receivers of this link by rank of the transfer group.

        When `given_up` is set, a receiver is known to be lost, and the wait for it ends.
        """
        self._library, self._store, self._peers = library, store, peers
        self._device, self._deadline_s, self._given_up = device, deadline_s, given_up
        self._communicator: Communicator | None = None
        unique_id = self._attempt(library.new_id, "the NCCL library does not answer")
        store.set(NCCL_KEY, unique_id.hex())

        def connect() -> Communicator:
            return library.connect(unique_id, 0, 1 + len(peers), device)

        self._communicator = self._attempt(connect, "did not connect over NCCL", connected_key)

    def send(self, buffer: SendBuffer) -> None:
        """See `SendingLink`."""
        version = int(buffer.policy_version or 0)

        def produce() -> None:
            self._library.produce(
                iterator=buffer.tensors(),
                group=self._communicator,
                src=0,
                post_iter_func=lambda item: item[1],
                buffer_size_bytes=PACKED_BYTES,
                num_buffers=PACKED_BUFFERS,
            )

        self._attempt(produce, f"did not take version {version} over NCCL", lambda rank: received_key(version, rank))

    def close(self) -> None:
        """See `SendingLink`."""
        communicator, self._communicator = self._communicator, None
        if communicator is not None:
            communicator.destroy()

    def _attempt(self, work: Callable[[], Any], what: str, key: Callable[[int], str] | None = None) -> Any:
        def on_device() -> Any:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # a new thread begins on GPU 0
            return work()

        try:
            return bounded(on_device, self._deadline_s, self._given_up.is_set)
        except TimeoutError:
            names = ", ".join(
                peer.named(rank) for rank, peer in self._peers.items() if key and not self._store.check([key(rank)])
            )
            self.close()
            raise WeightSyncError(f"{names} {what} in {self._deadline_s:g} s".strip()) from None
        except WeightSyncError:
            raise
        except Exception as error:
            self.close()
            raise WeightSyncError(f"NCCL failed: {error}") from None


class IpcSender:
    """Receivers on the learner's own GPU: they map its buffer. Nothing is copied on the way."""

    def __init__(self, store: Any, peers: Mapping[int, Peer]) -> None:
        self._store, self._peers = store, peers
        self._exported: torch.Tensor | None = None
        self._handles: dict[int, bytes] = {}

    def send(self, buffer: SendBuffer) -> None:
        """See `SendingLink`."""
        if self._exported is not buffer.memory:
            self._exported = buffer.memory
            # torch counts references across processes: one export for every process that will let go of it.
            self._handles = {rank: _export(buffer.memory) for rank in self._peers}
        torch.cuda.current_stream(buffer.memory.device).synchronize()
        for rank, handle in self._handles.items():
            self._store.set(ipc_key(int(buffer.policy_version or 0), rank), handle)

    def close(self) -> None:
        """Receivers that have mapped the buffer keep it until they let go."""
        self._exported, self._handles = None, {}


def _export(memory: torch.Tensor) -> bytes:
    from torch.multiprocessing.reductions import reduce_tensor

    _, arguments = reduce_tensor(memory)  # type: ignore[no-untyped-call]
    return pickle.dumps(arguments)
