"""A digest that a GPU computes where the weights lie: copying them to the host for xxh3 would cost more than the sync.

A weighted sum modulo 2^64 of a tensor's 32-bit words. Every weight is odd, so no change of one word goes unseen;
weights differ by place, so neither does an exchange of two. Against accidents, not against forgery.
Where the bytes are on the host, `digest` is quicker.
Written for arrays of numpy and torch alike: both halves of the wire import it, and this package imports neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xxhash

from rayzero.services.schema.broadcast.wire import ALIGNMENT_BYTES, Extent

PREFIX = "sum64:"
"""Tells this digest from xxh3's in a manifest."""

LANES = ALIGNMENT_BYTES // 4
"""32-bit words a row: tensors begin on rows, so that a row belongs to one tensor."""

_LANE_STEP, _ROW_STEP = 0x5851F42D4C957F2E, 0x2545F4914F6CDD1E


def fingerprints(words: Any, lanes: Any, rows: Any, extents: Sequence[Extent]) -> Any:
    """[len(extents)] int64, one sum for each tensor of one bucket, still on its device.

    words [n, LANES] int32, the bucket's bytes, zero where no tensor is; lanes [LANES] and rows [n] int64, 0, 1, 2 …
    """
    sums = ((words * (lanes * _LANE_STEP + 1)).sum(-1) * (rows * _ROW_STEP + 1)).cumsum(0)
    first = [extent.offset_bytes // ALIGNMENT_BYTES for extent in extents]
    last = [start - 1 + -(-extent.num_bytes // ALIGNMENT_BYTES) for start, extent in zip(first, extents, strict=True)]
    before = sums[first] - (words[first] * (lanes * _LANE_STEP + 1)).sum(-1) * (rows[first] * _ROW_STEP + 1)
    return sums[last] - before


def fingerprint_text(total: int) -> str:
    """How a sum stands in a manifest."""
    return f"{PREFIX}{total % 2**64:016x}"


def digest(data: Any) -> str:
    """xxh3_64 of the bytes of a uint8 tensor on the host, hexadecimal."""
    return xxhash.xxh3_64_hexdigest(data.numpy().data)
