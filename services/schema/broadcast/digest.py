"""A digest that a GPU computes where the weights lie: copying them to the host for xxh3 would cost more than the sync.

A weighted sum modulo 2^64 of a tensor's 32-bit words. Every weight is odd, so no change of one word goes unseen;
weights differ by place, so neither does an exchange of two. Against accidents, not against forgery.
Where the bytes are on the host, `digest` is quicker.
Written for arrays of numpy and torch alike: both halves of the wire import it, and this package imports neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from rayzero.services.schema.broadcast.wire import ALIGNMENT_BYTES, Extent

PREFIX = "sum64:"
"""Tells this digest from xxh3's in a manifest."""

LANES = ALIGNMENT_BYTES // 4
"""32-bit words a row: tensors begin on rows, so that a row belongs to one tensor."""

PART_ROWS = 2**18
"""Rows that are summed at a time: 16 MiB of weights."""

SCRATCH_BYTES = PART_ROWS * (LANES + 4) * 8
"""What a digest needs beside the weights, however large they are: the products of one part in 64 bits, and a few
numbers for each of its rows."""

_LANE_STEP, _ROW_STEP = 0x5851F42D4C957F2E, 0x2545F4914F6CDD1E


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows [start, stop) of a bucket, and the tensors that have some of them."""

    start: int
    stop: int
    step: int
    """What is added to the weights of rows counted from 0."""
    tensors: Any
    """Which of the bucket's."""
    first: Any
    """[len(tensors)] row of the part where each of them begins in it."""
    last: Any
    """[len(tensors)] its last row there."""


class Fingerprints:
    """The sums of tensors that lie at given places. Made once for a layout: what it keeps on the device does not change
    from version to version."""

    def __init__(self, extents: Sequence[Extent], array: Callable[[Sequence[int]], Any]) -> None:
        """`array` makes a one-dimensional int64 array where the weights lie."""
        self.extents = tuple(extents)
        members: dict[int, list[int]] = {}
        for index, extent in enumerate(self.extents):
            members.setdefault(extent.bucket, []).append(index)
        rows = {bucket: max(_stop(self.extents[i]) for i in own) for bucket, own in members.items()}
        self._lanes = array(range(LANES)) * _LANE_STEP + 1
        self._rows = array(range(min(PART_ROWS, max(rows.values(), default=0)))) * _ROW_STEP + 1
        self._parts = {
            bucket: [
                _part([self.extents[i] for i in own], start, min(start + PART_ROWS, rows[bucket]), array)
                for start in range(0, rows[bucket], PART_ROWS)
            ]
            for bucket, own in members.items()
        }
        self._zeros = {bucket: array([0] * len(own)) for bucket, own in members.items()}

    def of_bucket(self, bucket: int, words: Any) -> Any:
        """[number of the bucket's tensors] int64 in the order of their extents, still on the device.

        words [n, LANES] int32: the bucket's bytes. Those that fill a tensor's last row up are part of its sum.
        """
        sums = self._zeros[bucket] + 0
        for part in self._parts[bucket]:
            weights = self._rows[: part.stop - part.start] + part.step
            of_rows = (words[part.start : part.stop] * self._lanes).sum(-1) * weights
            upto = of_rows.cumsum(0)
            sums[part.tensors] += upto[part.last] - upto[part.first] + of_rows[part.first]
        return sums


def fingerprint_text(total: int) -> str:
    """How a sum stands in a manifest."""
    return f"{PREFIX}{total % 2**64:016x}"


def digest(data: Any) -> str:
    """xxh3_64 of the bytes of a uint8 tensor on the host, hexadecimal."""
    return xxhash.xxh3_64_hexdigest(data.numpy().data)


def _part(extents: Sequence[Extent], start: int, stop: int, array: Callable[[Sequence[int]], Any]) -> _Part:
    spans = [(max(_start(extent), start), min(_stop(extent), stop)) for extent in extents]
    inside = [index for index, (first, end) in enumerate(spans) if first < end]
    step = start * _ROW_STEP % 2**64
    return _Part(
        start=start,
        stop=stop,
        step=step - 2**64 if step >= 2**63 else step,
        tensors=array(inside),
        first=array([spans[index][0] - start for index in inside]),
        last=array([spans[index][1] - 1 - start for index in inside]),
    )


def _start(extent: Extent) -> int:
    return extent.offset_bytes // ALIGNMENT_BYTES


def _stop(extent: Extent) -> int:
    return _start(extent) + -(-extent.num_bytes // ALIGNMENT_BYTES)
