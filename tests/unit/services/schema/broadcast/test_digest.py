"""Digests by sums: every flip seen, however the rows are dealt into parts, in memory that does not grow."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rayzero.services.schema.broadcast import digest as fingerprint
from rayzero.services.schema.broadcast.digest import LANES, SCRATCH_BYTES, Fingerprints, fingerprint_text
from rayzero.services.schema.broadcast.wire import ALIGNMENT_BYTES, Extent

LANE_STEP, ROW_STEP = 0x5851F42D4C957F2E, 0x2545F4914F6CDD1E
EXTENTS = [
    Extent(bucket=0, offset_bytes=first * ALIGNMENT_BYTES, num_bytes=(last - first) * ALIGNMENT_BYTES - spare)
    for first, last, spare in ((0, 7, 0), (7, 8, 60), (8, 8, 0), (8, 40, 2))
]
"""Three tensors with one between them that has no bytes."""
ints = partial(np.array, dtype=np.int64)
tensor = partial(torch.tensor, dtype=torch.int64)


def some_words(rows: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**31), 2**31, (rows, LANES)).astype(np.int32)


def sums(words: np.ndarray, extents: list[Extent] = EXTENTS) -> list[int]:
    return list(Fingerprints(extents, ints).of_bucket(0, words).tolist())


def by_the_formula(words: np.ndarray, extent: Extent) -> int:
    first = extent.offset_bytes // ALIGNMENT_BYTES
    rows = range(first, first - (-extent.num_bytes // ALIGNMENT_BYTES))
    total = sum(
        int(words[row, lane]) * (lane * LANE_STEP + 1) * (row * ROW_STEP + 1) for row in rows for lane in range(LANES)
    )
    return total % 2**64


@pytest.mark.parametrize("part_rows", [1, 3, 8, 2**17])
def test_a_sum_is_what_the_formula_says_in_parts_of_any_size(part_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PART_ROWS", part_rows)
    words = some_words()
    expected = [by_the_formula(words, extent) for extent in EXTENTS]
    assert [total % 2**64 for total in sums(words)] == expected
    on_torch = Fingerprints(EXTENTS, tensor).of_bucket(0, torch.from_numpy(words))
    assert [total % 2**64 for total in on_torch.tolist()] == expected
    assert fingerprint_text(-1) == "sum64:" + "f" * 16


def test_every_flip_and_exchange_is_seen_and_the_tensor_named() -> None:
    rng = np.random.default_rng(0)
    words = some_words()
    before = sums(words)
    for _ in range(50):
        changed = words.copy()
        row, lane, bit = rng.integers(40), rng.integers(LANES), rng.integers(32)
        changed[row, lane] ^= np.int32(np.uint32(1) << np.uint32(bit)) if bit < 31 else np.int32(-(2**31))
        differs = [old != new for old, new in zip(before, sums(changed), strict=True)]
        assert differs == [row < 7, row == 7, False, row > 7]
        (r1, l1), (r2, l2) = rng.integers((40, LANES), size=(2, 2))
        changed = words.copy()
        changed[r1, l1], changed[r2, l2] = words[r2, l2], words[r1, l1]
        assert (sums(changed) == before) == (words[r1, l1] == words[r2, l2])


def test_buckets_are_summed_each_for_itself() -> None:
    words = some_words(9)
    (alone,) = sums(words, [Extent(bucket=0, offset_bytes=64, num_bytes=500)])
    both = [Extent(bucket=0, offset_bytes=0, num_bytes=64), Extent(bucket=1, offset_bytes=64, num_bytes=500)]
    assert Fingerprints(both, ints).of_bucket(1, words).tolist() == [alone]


def test_a_digest_of_any_tensor_takes_little_memory() -> None:
    num_bytes = 24 * 2**20
    memory = torch.zeros(num_bytes, dtype=torch.uint8)
    places = Fingerprints([Extent(bucket=0, offset_bytes=0, num_bytes=num_bytes)], tensor)
    with Live() as live:
        assert places.of_bucket(0, memory.view(torch.int32).view(-1, LANES)).tolist() == [0]
    assert 2**20 < live.peak <= SCRATCH_BYTES == 40 * 2**20


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations have made and that are still referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in old:
            self.now += made.untyped_storage().nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(made, self._freed, made.untyped_storage().nbytes())
        return made

    def _freed(self, num_bytes: int) -> None:
        self.now -= num_bytes
