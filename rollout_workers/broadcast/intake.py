"""A streamed broadcast as it comes in: one bucket is proven and loaded while the next one is on its way.

Memory for two buckets is all that it takes, and none where the learner's are mapped. What is wrong with one bucket is
raised when all have come: a receiver that stops in the middle would hang the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from rayzero.rollout_workers.broadcast.group import ReceiverGroup
from rayzero.rollout_workers.broadcast.lone_thread import lone_thread
from rayzero.services.schema.broadcast.wire import NUM_ROOMS, room_of
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import WeightManifest

Consumer = Callable[[int, torch.Tensor, Sequence[str]], None]
"""Proves and takes in one bucket: its number, its bytes [n] uint8, its digests. Looks at neither after it returns."""


class BucketIntake:
    """Rooms and a thread, kept from version to version."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rooms = torch.empty(0, dtype=torch.uint8, device=device)
        self._thread = lone_thread("take", device)

    @property
    def num_bytes(self) -> int:
        """Of its rooms."""
        return self._rooms.numel()

    def reserve(self, group: ReceiverGroup, manifest: WeightManifest) -> None:
        """Make room, before this receiver says that it is ready.

        Raises:
            WeightSyncError: the GPU has not so much left; says what would help.
        """
        num_bytes = 0 if group.maps else NUM_ROOMS * manifest.largest_bucket_bytes
        if self._rooms.numel() == num_bytes:
            return
        self._rooms = torch.empty(0, dtype=torch.uint8, device=self._device)  # the old ones first
        try:
            self._rooms = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError:
            raise WeightSyncError(
                f"{self._device} has no {num_bytes / 2**30:.1f} GiB left for two buckets of new weights: lower "
                "rollout.kv_cache_bytes or rollout.max_num_seqs"
            ) from None

    def take(self, group: ReceiverGroup, manifest: WeightManifest, give_up: float, consume: Consumer) -> None:
        """Give `consume` every bucket, in order, in this thread. It is not called again once it has raised.

        Raises:
            WeightSyncError: the broadcast broke off or did not come by `give_up` (of the monotonic clock).
            Exception: what `consume` raised.
        """
        num_buckets, problem = len(manifest.bucket_bytes), None

        def taken(index: int) -> tuple[torch.Tensor, list[str]]:
            room = room_of(self._rooms, index, manifest.bucket_bytes[index])
            return group.take_bucket(manifest, index, room, give_up - time.monotonic())

        coming = self._thread.submit(taken, 0) if num_buckets else None
        for index in range(num_buckets):
            assert coming is not None
            try:
                bucket, digests = coming.result()
            except WeightSyncError as error:
                raise problem or error from None
            if index + 1 < num_buckets:
                coming = self._thread.submit(taken, index + 1)
            if problem is None:
                problem = self._problem_of(consume, index, bucket, digests)
            group.release(manifest, index)
        if problem is not None:
            raise problem

    def _problem_of(
        self, consume: Consumer, index: int, bucket: torch.Tensor, digests: Sequence[str]
    ) -> Exception | None:
        try:
            consume(index, bucket, digests)
            if self._device.type == "cuda":
                # Bytes of the next bucket arrive on another stream: copies from this one must not meet them.
                torch.cuda.current_stream(self._device).synchronize()
        except Exception as error:
            return error
        return None
