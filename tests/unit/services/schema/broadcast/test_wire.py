"""The layout that both halves of the weight broadcast agree on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rayzero.services.schema.broadcast.wire import ALIGNMENT_BYTES, plan_buckets


def test_hand_computed_layout() -> None:
    extents, buckets = plan_buckets([100, 28, 64, 300, 1], bucket_bytes=256)
    placed = [(extent.bucket, extent.offset_bytes, extent.num_bytes) for extent in extents]
    # 100 -> 128 aligned; 28 -> 64; 64 -> 64: 256 in all, full. 300 is too large for any bucket: one of its own, 320.
    assert placed == [(0, 0, 100), (0, 128, 28), (0, 192, 64), (1, 0, 300), (2, 0, 1)]
    assert buckets == (256, 320, 64)


def test_nothing_needs_no_bucket() -> None:
    assert plan_buckets([], 64) == ((), ())


@given(st.lists(st.integers(min_value=0, max_value=5000), max_size=40), st.integers(min_value=64, max_value=4096))
def test_tensors_are_aligned_in_order_and_apart(sizes: list[int], bucket_bytes: int) -> None:
    extents, buckets = plan_buckets(sizes, bucket_bytes)
    end = {bucket: 0 for bucket in range(len(buckets))}
    for size, extent in zip(sizes, extents, strict=True):
        assert extent.num_bytes == size
        assert extent.offset_bytes % ALIGNMENT_BYTES == 0
        assert extent.offset_bytes >= end[extent.bucket]
        end[extent.bucket] = extent.offset_bytes + size
        assert end[extent.bucket] <= buckets[extent.bucket]
    assert [extent.bucket for extent in extents] == sorted(extent.bucket for extent in extents)
    largest = -(-max(sizes, default=0) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    assert all(size <= max(bucket_bytes, largest) for size in buckets)
