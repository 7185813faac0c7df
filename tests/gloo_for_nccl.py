"""Gloo in NCCL's place: all else of the NCCL path is real, how it cuts its messages and how it waits included."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from rayzero.learner.broadcast import gpu_links as sending_links
from rayzero.learner.broadcast import group as sending
from rayzero.learner.broadcast import sender as weight_sender
from rayzero.rollout_workers.broadcast import gpu_links
from rayzero.rollout_workers.broadcast import group as receiving
from rayzero.services.schema.broadcast import nccl
from rayzero.services.schema.broadcast.transport import Peer

DISTRIBUTED: Any = torch.distributed
TIMEOUT = timedelta(seconds=20)
MESSAGE_BYTES = int(os.environ.get("RAYZERO_TEST_MESSAGE_BYTES", "7000"))
"""Small, so that a tiny model takes several messages, whose ends lie within tensors; of both processes."""


class GlooCommunicator:
    """What is asked of a `NcclCommunicator`."""

    def __init__(self, unique_id: bytes, rank: int, world_size: int) -> None:
        options = DISTRIBUTED.ProcessGroupGloo._Options()
        options._timeout = TIMEOUT
        options._devices = [DISTRIBUTED.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        store = DISTRIBUTED.TCPStore("127.0.0.1", int(unique_id), None, False, TIMEOUT, wait_for_workers=False)
        self._store = store
        self._group = DISTRIBUTED.ProcessGroupGloo(store, rank, world_size, options)

    def broadcast(self, tensor: torch.Tensor, root: int, stream: Any) -> None:
        assert isinstance(stream, Stream)
        options = DISTRIBUTED.BroadcastOptions()
        options.rootRank = root
        self._group.broadcast([tensor], options).wait()

    def destroy(self) -> None:
        self._group.shutdown()


STORES: list[Any] = []


class GlooLibrary:
    """What is asked of `Nccl`."""

    def new_id(self) -> bytes:
        """As NCCL's unique id: where the ranks meet."""
        STORES.append(DISTRIBUTED.TCPStore("127.0.0.1", 0, None, True, TIMEOUT, wait_for_workers=False))
        return str(STORES[-1].port).encode().ljust(nccl.ID_BYTES)

    def connect(self, unique_id: bytes, rank: int, world_size: int) -> GlooCommunicator:
        return GlooCommunicator(unique_id, rank, world_size)


class Stream:
    """A CPU has no streams: all is done when it is asked for."""

    def synchronize(self) -> None:
        pass


def pretends_a_gpu() -> Any:
    """A `this_peer` whose process has a GPU of its own."""

    def this_peer(device: torch.device, sees_learner: bool = True) -> Peer:
        return Peer(host=socket.gethostname(), process=os.getpid(), gpu=f"GPU-{os.getpid()}", sees_learner=sees_learner)

    return this_peer


def install_sender(patch: Any) -> None:
    """The learner's process; `patch(target, name, value)` sets attributes."""
    patch(sending, "this_peer", pretends_a_gpu())
    patch(weight_sender, "Nccl", GlooLibrary)
    patch(sending_links, "side_stream", lambda device: Stream())
    patch(nccl, "MESSAGE_BYTES", MESSAGE_BYTES)


def install_receiver(patch: Any) -> None:
    """The engine's process."""
    patch(receiving, "this_peer", pretends_a_gpu())
    patch(gpu_links, "engine_nccl", GlooLibrary)
    patch(gpu_links, "side_stream", lambda device: Stream())
    patch(nccl, "MESSAGE_BYTES", MESSAGE_BYTES)
