"""The receiving end between GPUs: vLLM's packed NCCL broadcast, and CUDA IPC where both share one GPU.

The counterpart of learner/broadcast/gpu_links.py. NCCL's waits are bounded here as there, and what hangs is aborted.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch

from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
from rayzero.services.schema.broadcast.deadline import bounded
from rayzero.services.schema.broadcast.wire import (
    NCCL_KEY,
    PACKED_BUFFERS,
    PACKED_BYTES,
    connected_key,
    ipc_key,
    received_key,
)
from rayzero.services.schema.messages import WeightManifest

T = TypeVar("T")


class NcclReceiver:
    """On a GPU of its own: one rank of the NCCL group."""

    def __init__(
        self, store: Any, rank: int, rank_and_size: tuple[int, int], device: torch.device, deadline_s: float
    ) -> None:
        self._store, self._rank, self._device = store, rank, device
        unique_id = bytes.fromhex(store.get(NCCL_KEY).decode())
        self._communicator: Any = self._bounded(lambda: connect(unique_id, *rank_and_size, device), deadline_s)
        store.set(connected_key(rank), "")

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """See `ReceivingLink`. Messages are not buckets: all buckets are there when the last message is."""
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_consumer

        staging.lay_out(manifest, self._device)
        places = dict(staging.tensors())

        def place(tensors: list[tuple[str, torch.Tensor]]) -> None:
            for name, tensor in tensors:
                places[name].copy_(tensor)

        def consume() -> None:
            packed_nccl_broadcast_consumer(
                iterator=((name, (list(place.shape), place.dtype)) for name, place in places.items()),
                group=self._communicator,
                src=0,
                post_unpack_func=place,
                buffer_size_bytes=PACKED_BYTES,
                num_buffers=PACKED_BUFFERS,
                device=self._device,
            )

        self._bounded(consume, deadline_s)
        self._store.set(received_key(manifest.policy_version, self._rank), "")
        yield from range(len(manifest.bucket_bytes))

    def close(self) -> None:
        """See `ReceivingLink`."""
        communicator, self._communicator = self._communicator, None
        if communicator is not None:
            communicator.destroy()

    def _bounded(self, work: Callable[[], T], deadline_s: float) -> T:
        def on_device() -> T:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # a new thread begins on GPU 0
            return work()

        try:
            return bounded(on_device, deadline_s)
        except TimeoutError:
            if hasattr(self, "_communicator"):
                self.close()
            raise TimeoutError(f"NCCL on {self._device} waited {deadline_s:g} s and was aborted") from None


class IpcReceiver:
    """On the learner's GPU: its buffer, mapped by CUDA. The learner leaves it alone until this version is served."""

    def __init__(self, store: Any, rank: int, device: torch.device) -> None:
        self._store, self._rank, self._device = store, rank, device
        self._mapped: tuple[bytes, torch.Tensor] | None = None

    def take(self, manifest: WeightManifest, staging: StagingBuffer, deadline_s: float, *, keep: bool) -> Iterator[int]:
        """See `ReceivingLink`."""
        key = ipc_key(manifest.policy_version, self._rank)
        self._store.wait([key], timedelta(seconds=max(deadline_s, 0.001)))
        handle = self._store.get(key)
        if self._mapped is None or self._mapped[0] != handle:
            self._mapped = None  # let go of the one before, so that the learner can free it
            self._mapped = (handle, _map(handle, self._device))
        staging.use(manifest, self._mapped[1])
        yield from range(len(manifest.bucket_bytes))

    def close(self) -> None:
        """See `ReceivingLink`."""
        self._mapped = None


def connect(unique_id: bytes, rank: int, world_size: int, device: torch.device) -> Any:
    """vLLM's communicator; returns when all ranks have called it."""
    from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
    from vllm.utils.nccl import unpinned_nccl_env

    with unpinned_nccl_env():
        return PyNcclCommunicator.from_unique_id_bytes(unique_id, rank, world_size, device)


def _map(handle: bytes, device: torch.device) -> torch.Tensor:
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    arguments = list(pickle.loads(handle))
    arguments[6] = device.index  # the GPU has another number in the process that exported it
    memory: torch.Tensor = rebuild_cuda_tensor(*arguments)  # type: ignore[no-untyped-call]
    return memory
