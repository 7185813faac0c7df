"""Which way weights take from the learner to one engine: decided by where the two of them compute.

    same GPU        ipc      the engine maps the learner's memory (CUDA IPC)
    two GPUs        nccl     one NCCL broadcast, to all such engines at once
    same machine    memory   the engine reads the learner's buffer (one of the two is a CPU)
    elsewhere       gloo     broadcast over TCP

One transfer group may hold receivers of every kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal

from rayzero.services.schema.errors import WeightSyncError

Transport = Literal["auto", "nccl", "ipc", "gloo"]
"""What a recipe may ask for; `gloo` includes shared memory on the learner's machine."""


class Route(StrEnum):
    """How one receiver is served."""

    MEMORY = "memory"
    GLOO = "gloo"
    NCCL = "nccl"
    IPC = "ipc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A process at one end of a transfer, as it describes itself when it joins."""

    host: str
    process: int
    gpu: str = ""
    """UUID of the GPU that it computes on; empty on a CPU."""
    sees_learner: bool = False
    """Whether it can open the learner's shared memory: it is on the learner's machine."""

    def named(self, rank: int) -> str:
        """For errors: rank, host, GPU."""
        return f"rank {rank} (host {self.host}, {f'GPU {self.gpu}' if self.gpu else 'CPU'}, process {self.process})"

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str | bytes) -> Peer:
        """The inverse of `str`."""
        return Peer(**json.loads(text))


def choose_link(learner: Peer, receiver: Peer, transport: Transport = "auto") -> Route:
    """The link for one receiver.

    Raises:
        WeightSyncError: the transport asked for cannot reach this receiver; says why.
    """
    on_gpus = bool(learner.gpu and receiver.gpu)
    same_gpu = on_gpus and learner.gpu == receiver.gpu and learner.host == receiver.host
    if on_gpus and learner.gpu == receiver.gpu and not same_gpu and transport != "gloo":
        raise WeightSyncError(
            f"learner and engine are on one GPU ({learner.gpu}) and call their host {learner.host} and "
            f"{receiver.host}: two containers that were given one GPU reach each other neither by nccl nor by ipc; "
            "give each its own GPU, run both in one container, or set cluster.weight_transport: gloo"
        )
    if transport == "nccl" and (not on_gpus or same_gpu):
        raise WeightSyncError(f"nccl needs a GPU of its own at each end: {_between(learner, receiver)}")
    if transport == "ipc" and not same_gpu:
        raise WeightSyncError(f"ipc needs learner and engine on the same GPU: {_between(learner, receiver)}")
    if on_gpus and transport != "gloo":
        return Route.IPC if same_gpu else Route.NCCL
    return Route.MEMORY if receiver.sees_learner else Route.GLOO


def links_text(links: Mapping[int, Route]) -> str:
    """What rank 0 tells the receivers: the link of each rank."""
    return json.dumps({str(rank): link.value for rank, link in links.items()})


def parse_links(text: str | bytes) -> dict[int, Route]:
    """The inverse of `links_text`."""
    return {int(rank): Route(link) for rank, link in json.loads(text).items()}


def rank_within(links: Mapping[int, Route], rank: int) -> tuple[int, int]:
    """(rank, size) within the collective group of all receivers that have the same link; the learner is its rank 0."""
    same = sorted(other for other, link in links.items() if link is links[rank])
    return 1 + same.index(rank), 1 + len(same)


def _between(learner: Peer, receiver: Peer) -> str:
    return f"the learner is on {_where(learner)}, the engine on {_where(receiver)}; set cluster.weight_transport: auto"


def _where(peer: Peer) -> str:
    return f"{f'GPU {peer.gpu}' if peer.gpu else 'a CPU'} of {peer.host}"
