"""Gloo in NCCL's place: everything else of the NCCL path is real, vLLM's packing code included."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from rayzero.learner.broadcast import gpu_links as sending_links
from rayzero.learner.broadcast import group as sending
from rayzero.learner.broadcast import sender as weight_sender
from rayzero.learner.broadcast.gpu_links import NcclLibrary
from rayzero.learner.broadcast.sender import vllm_nccl
from rayzero.rollout_workers.broadcast import gpu_links
from rayzero.rollout_workers.broadcast import group as receiving
from rayzero.services.schema.broadcast.transport import Peer

DISTRIBUTED: Any = torch.distributed
TIMEOUT = timedelta(seconds=20)
ID_BYTES = 128
MESSAGE_BYTES = 7000
"""Small, so that a tiny model takes several messages, and has tensors that are larger than one."""


class GlooCommunicator:
    """What vLLM's packing code asks of a `PyNcclCommunicator`."""

    def __init__(self, unique_id: bytes, rank: int, world_size: int, device: torch.device) -> None:
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = TIMEOUT
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        store = DISTRIBUTED.TCPStore("127.0.0.1", int(unique_id), None, False, TIMEOUT, wait_for_workers=False)
        self._store = store
        self._group = DISTRIBUTED.ProcessGroupGloo(store, rank, world_size, options)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = src
        self._group.broadcast([tensor], options).wait()

    def destroy(self) -> None:
        self._group.shutdown()


STORES: list[Any] = []


def new_id() -> bytes:
    """As NCCL's unique id: where the ranks meet."""
    STORES.append(DISTRIBUTED.TCPStore("127.0.0.1", 0, None, True, TIMEOUT, wait_for_workers=False))
    return str(STORES[-1].port).encode().ljust(ID_BYTES)


def library() -> NcclLibrary:
    """The real one but for the transport: packing stays vLLM's."""
    return replace(vllm_nccl(), new_id=new_id, connect=GlooCommunicator)


class Stream:
    """A CPU has no streams: all is done when it is asked for."""

    def synchronize(self) -> None:
        pass


def without_streams(patch: Any) -> None:
    """vLLM's packing code on a CPU; `patch(target, name, value)` sets attributes."""
    from vllm.distributed.weight_transfer import packed_tensor

    patch(packed_tensor, "_get_streams", lambda device, num_buffers: tuple(Stream() for _ in range(num_buffers)))
    patch(torch.cuda, "stream", lambda stream: nullcontext())
    patch(torch.accelerator, "current_device_index", lambda: 0)


def pretends_a_gpu() -> Any:
    """A `this_peer` whose process has a GPU of its own."""

    def this_peer(device: torch.device, sees_learner: bool = True) -> Peer:
        return Peer(host=socket.gethostname(), process=os.getpid(), gpu=f"GPU-{os.getpid()}", sees_learner=sees_learner)

    return this_peer


def install_sender(patch: Any) -> None:
    """The learner's process."""
    without_streams(patch)
    patch(sending, "this_peer", pretends_a_gpu())
    patch(weight_sender, "vllm_nccl", library)
    patch(sending_links, "PACKED_BYTES", MESSAGE_BYTES)


def install_receiver(patch: Any) -> None:
    """The engine's process."""
    without_streams(patch)
    patch(receiving, "this_peer", pretends_a_gpu())
    patch(gpu_links, "connect", GlooCommunicator)
    patch(gpu_links, "PACKED_BYTES", MESSAGE_BYTES)
