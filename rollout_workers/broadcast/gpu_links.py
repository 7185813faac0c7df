"""The receiving end between GPUs: an NCCL broadcast, and CUDA IPC where both share one GPU.

The counterpart of learner/broadcast/gpu_links.py. NCCL's waits are bounded here as there, and what hangs is aborted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch

from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.services.schema.broadcast.nccl import Nccl, NcclCommunicator, NcclLibrary
from rayzero.services.schema.broadcast.nccl_rank import NcclRank
from rayzero.services.schema.broadcast.store import Store
from rayzero.services.schema.broadcast.wire import NCCL_KEY, connected_key, ipc_key, received_key, room_of
from rayzero.services.schema.weights import WeightManifest


class NcclReceiver:
    """On a GPU of its own: one rank of the NCCL group."""

    def __init__(
        self, store: Store, rank: int, rank_and_size: tuple[int, int], device: torch.device, deadline_s: float
    ) -> None:
        self._store, self._rank, self._device = store, rank, device
        self._slot = NcclRank(engine_nccl(), partial(side_stream, device))
        unique_id = bytes.fromhex(store.get(NCCL_KEY).decode())
        probe = torch.zeros(1, dtype=torch.uint8, device=device)
        with self._aborted(deadline_s):
            self._slot.connect(unique_id, *rank_and_size, probe, deadline_s)
        store.set(connected_key(rank), "")

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """See `ReceivingLink`. Messages are not buckets: all buckets are there when the last message is."""
        staging.lay_out(manifest, self._device)
        self._broadcast(staging.memory, manifest.policy_version, 1, deadline_s)
        yield from range(len(manifest.bucket_bytes))

    def take_delta(self, policy_version: int, num_bytes: int, deadline_s: float) -> torch.Tensor:
        """See `CopyingReceiver`."""
        room = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        self._broadcast(room, policy_version, 1, deadline_s)
        return room

    def take_bucket(self, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float) -> torch.Tensor:
        """See `ReceivingLink`."""
        self._broadcast(room, manifest.policy_version, index + 1, deadline_s)
        return room

    def _broadcast(self, memory: torch.Tensor, version: int, count: int, deadline_s: float) -> None:
        """The `count`th message of a version."""
        with self._aborted(deadline_s):
            self._slot.broadcast(memory, deadline_s)
        self._store.set(received_key(version, self._rank), str(count))

    def close(self) -> None:
        """See `ReceivingLink`."""
        self._slot.close()

    @contextmanager
    def _aborted(self, deadline_s: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise TimeoutError(f"NCCL on {self._device} waited {deadline_s:.3g} s and was aborted") from None


class IpcReceiver:
    """On the learner's GPU: its buffer, mapped by CUDA. The learner leaves it alone until this version is served."""

    def __init__(self, store: Store, rank: int, device: torch.device) -> None:
        self._store, self._rank, self._device = store, rank, device
        self._mapped: tuple[bytes, torch.Tensor] | None = None

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """See `ReceivingLink`."""
        staging.use(manifest, self._map(manifest, deadline_s, staging.let_go))
        yield from range(len(manifest.bucket_bytes))

    def take_bucket(self, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float) -> torch.Tensor:
        """See `ReceivingLink`."""
        mapped: torch.Tensor = room_of(self._map(manifest, deadline_s), index, manifest.bucket_bytes[index])
        return mapped

    def _map(
        self, manifest: WeightManifest, deadline_s: float, let_go: Callable[[], None] = lambda: None
    ) -> torch.Tensor:
        key = ipc_key(manifest.policy_version, self._rank)
        self._store.wait([key], timedelta(seconds=max(deadline_s, 0.001)))
        handle = self._store.get(key)
        if self._mapped is None or self._mapped[0] != handle:
            # Let go of the one before, so that the learner can free it: the GPU may have no room for both.
            self._mapped = None
            let_go()
            self._mapped = (handle, _map(handle, self._device))
        return self._mapped[1]

    def close(self) -> None:
        """See `ReceivingLink`."""
        self._mapped = None


class _EngineNccl(Nccl):
    """vLLM sets NCCL's variables for the engine's own groups. A group with the learner, whose process does not have
    them, would hang."""

    def connect(self, unique_id: bytes, rank: int, world_size: int) -> NcclCommunicator:
        from vllm.utils.nccl import unpinned_nccl_env

        with unpinned_nccl_env():
            return super().connect(unique_id, rank, world_size)


def engine_nccl() -> NcclLibrary:
    """NCCL as an engine's process must use it."""
    return _EngineNccl()


def side_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream beside the engine's; `device` becomes this thread's GPU, for a new thread begins on GPU 0."""
    torch.cuda.set_device(device)
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def _map(handle: bytes, device: torch.device) -> torch.Tensor:
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    fields = json.loads(handle)
    memory: torch.Tensor = rebuild_cuda_tensor(  # type: ignore[no-untyped-call]
        torch.Tensor,
        torch.Size(fields["size"]),
        tuple(fields["stride"]),
        fields["offset"],
        torch.TypedStorage,
        torch.uint8,
        device.index,  # the GPU has another number in the process that exported it
        bytes.fromhex(fields["handle"]),
        fields["num_bytes"],
        fields["storage_offset"],
        False,
        bytes.fromhex(fields["counter"]),
        fields["counter_offset"],
        bytes.fromhex(fields["event"]),
        fields["waits_for_event"],
    )
    return memory
