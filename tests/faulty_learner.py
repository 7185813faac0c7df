"""The learner's actor with small buckets, in whose next streamed broadcast something goes wrong to order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rayzero.learner.actor import LearnerActor
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.devices import Device
from rayzero.services.schema.weights import Rendezvous

BUCKET_BYTES = 2**15
"""A tiny model fills a dozen of them."""


class FaultyLearner(LearnerActor):
    """One rank. Everything but what was ordered is the real actor's."""

    def __init__(self, recipe: Recipe, model_path: str, share_memory: bool) -> None:
        """`share_memory` off: engines of this machine are served as if they were elsewhere."""
        super().__init__(recipe, model_path)
        self._share_memory = share_memory
        self._fault = ("", 0)

    async def start(self, device: Device, rank: int = 0, rendezvous: Rendezvous | None = None) -> None:
        from rayzero.services.schema.broadcast import wire

        wire.BUCKET_BYTES["cpu"] = BUCKET_BYTES
        await super().start(device, rank, rendezvous)
        self._sender._share_memory = self._share_memory

    async def order_fault(self, kind: str, at: int) -> None:
        """Of the next broadcast: `killed` before tensor `at` is put together, or bucket `at` `flipped` or `dropped`."""
        self._fault = (kind, at)

    def _stream(self) -> int:
        (kind, at), self._fault = self._fault, ("", 0)
        with pytest.MonkeyPatch.context() as patch:
            if kind == "killed":
                policy = self._learner.policy
                patch.setattr(policy, "sent_weights", lambda whole=policy.sent_weights: dying(whole(), at))
            elif kind == "dropped":
                drop_bucket(patch, at)
            elif kind == "flipped":
                flip_bucket(patch, at)
            return super()._stream()


def dying(tensors: Iterator[tuple[str, torch.Tensor]], at: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors, and the end of this process before number `at` of them."""
    for number, named in enumerate(tensors):
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield named


def drop_bucket(patch: pytest.MonkeyPatch, at: int) -> None:
    """Bucket `at` is made and never sent."""
    from rayzero.learner.broadcast.group import SenderGroup

    send = SenderGroup.send_bucket

    def send_others(group: SenderGroup, stream: Any, index: int) -> None:
        if index != at:
            send(group, stream, index)

    patch.setattr(SenderGroup, "send_bucket", send_others)


def flip_bucket(patch: pytest.MonkeyPatch, at: int) -> None:
    """A bit of bucket `at` changes after its digests were made, for all receivers."""
    from rayzero.learner.broadcast.stream import BucketStream

    fill = BucketStream.fill

    def fill_and_flip(stream: BucketStream, index: int, tensors: Any) -> None:
        fill(stream, index, tensors)
        if index == at:
            stream.bucket(index)[0] ^= 1

    patch.setattr(BucketStream, "fill", fill_and_flip)
