"""What vLLM's phases of a weight transfer are given: plain data, from the worker to each process of its engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo


@dataclass
class JoinInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Where to meet, and as whom: the rank of the engine's first worker; its tensor-parallel peers follow."""

    host: str
    port: int
    world_size: int
    rank: int
    deadline_s: float
    num_bytes: int
    """Of the broadcasts to come, as far as is known; 0 where they are not staged."""
    secret: str = field(repr=False)
    """Of the store there."""


@dataclass
class LoadInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Which staged version to load."""

    policy_version: int
    manifest: str = ""
    """Of a streamed broadcast that is taken now, in the pause, and loaded as it comes; empty: it is staged already."""
    deadline_s: float = 0.0
    """Of that."""
