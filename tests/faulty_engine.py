"""What vLLM imports in an engine's process, where a test names `Receiver` as the worker's extension.

All of the receiving end is real; to order, something goes wrong with one bucket of the next streamed broadcast.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.rollout_workers.broadcast.receiver import WeightReceiver
from rayzero.services.schema.weights import WeightManifest

SIGNALS = {"killed": signal.SIGKILL, "stalled": signal.SIGSTOP}
"""Faults of the process itself: a stopped one keeps its connections and answers nothing."""

ORDERED: dict[int, str] = {}
"""Bucket: what goes wrong with it, once."""

BEFORE: dict[int, torch.Tensor] = {}
"""The bytes of each bucket as they came last."""

take_bucket = ReceiverGroup.take_bucket


def take_faulty(
    group: ReceiverGroup, manifest: WeightManifest, index: int, room: torch.Tensor, deadline_s: float
) -> tuple[torch.Tensor, list[str]]:
    """`ReceiverGroup.take_bucket`, and what was ordered."""
    kind = ORDERED.pop(index, "")
    if kind in SIGNALS:
        os.kill(os.getpid(), SIGNALS[kind])
    bucket, digests = take_bucket(group, manifest, index, room, deadline_s)
    taken = spoilt(bucket, BEFORE.get(index), kind)
    BEFORE[index] = bucket.clone()
    return taken, digests


def spoilt(bucket: torch.Tensor, before: torch.Tensor | None, kind: str) -> torch.Tensor:
    """[n] uint8 as it is, or a copy with a bit `flipped` or its second half `torn`: of the version before."""
    if kind not in ("flipped", "torn"):
        return bucket
    copy = bucket.clone()
    if kind == "flipped":
        copy[0] ^= 1
    else:
        assert before is not None and before.numel() == bucket.numel()
        half = bucket.numel() // 2
        copy[half:] = before[half:]
        assert not torch.equal(copy, bucket), "both versions have the same bytes there"
    return copy


setattr(ReceiverGroup, "take_bucket", take_faulty)  # noqa: B010 - mypy takes a method for fixed


class Receiver(WeightReceiver):
    """With a way to order a fault."""

    def order_fault(self, kind: str, bucket: int) -> Any:
        """Of the next streamed broadcast."""
        ORDERED[bucket] = kind
