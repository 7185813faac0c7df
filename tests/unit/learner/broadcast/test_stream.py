"""Buckets made while they are sent: by turns in two rooms, each proven by digests of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from rayzero.learner.broadcast.stream import BucketStream
from rayzero.services.schema.broadcast.digest import PREFIX, Fingerprints, digest
from rayzero.services.schema.errors import WeightSyncError

CPU = torch.device("cpu")
SHAPES = [(20, 30), (7,), (20, 30), (100, 30), (20, 30)]


def weights(version: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(version)
    for index, shape in enumerate(SHAPES):
        yield f"w{index}", torch.randn(shape, generator=generator)


def announced(stream: BucketStream, version: int) -> None:
    stream.announce([(name, tensor.shape) for name, tensor in weights()], version)


def test_two_rooms_hold_what_was_cast_bucket_after_bucket() -> None:
    stream = BucketStream(torch.bfloat16, 1300, CPU)
    for version in (1, 2):
        announced(stream, version)
        tensors, sent = weights(version), dict(weights(version))
        assert stream.num_buckets == 4 and stream.manifest is not None
        for index in range(stream.num_buckets):
            stream.fill(index, tensors)
            specs = [spec for spec in stream.manifest.tensors if spec.bucket == index]
            for spec, checksum in zip(specs, stream.digests(index), strict=True):
                found = stream.host_bucket(index)[spec.offset_bytes : spec.offset_bytes + spec.num_bytes]
                assert torch.equal(found.view(torch.bfloat16).view(spec.shape), sent[spec.name].bfloat16())
                assert checksum == digest(found)
        assert stream.memory.numel() == 2 * 6016, "two of the largest, which one tensor fills"
    before = stream.memory.data_ptr()
    announced(stream, 3)
    stream.fill(0, weights(3))
    assert stream.memory.data_ptr() == before, "kept from version to version"
    stream.close()


def test_tensors_in_another_order_or_too_few_are_refused() -> None:
    stream = BucketStream(torch.float32, 10_000, CPU)
    announced(stream, 1)
    with pytest.raises(WeightSyncError, match="w0 was announced to be sent next, and w1 came"):
        stream.fill(0, iter([*weights()][1:]))
    with pytest.raises(WeightSyncError, match="w1 was announced to be sent next, and nothing came"):
        stream.fill(0, iter([*weights()][:1]))


def test_a_gpus_buckets_are_copied_to_the_host_once_and_digested_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a learner on a GPU does, its rooms on the CPU."""
    stream = BucketStream(torch.float32, 2500, torch.device("meta"))
    monkeypatch.setattr(stream, "_make_room", lambda largest_bytes: None)
    stream.announce([(name, tensor.shape) for name, tensor in weights()], 1)
    assert stream.manifest is not None
    stream._memory = torch.zeros(2 * stream.manifest.largest_bucket_bytes, dtype=torch.uint8)
    extents = stream.extents
    stream._fingerprints = Fingerprints(extents, partial(torch.tensor, dtype=torch.int64))
    tensors = weights()
    for index in range(stream.num_buckets):
        stream.fill(index, tensors)
        assert all(each.startswith(PREFIX) for each in stream.digests(index))
        assert torch.equal(stream.host_bucket(index), stream.bucket(index))
        stream.bucket(index)[0] ^= 1
        assert stream.host_bucket(index)[0] != stream.bucket(index)[0], "the copy is of the bucket as it was sent"
    assert stream.host.name.num_bytes == stream.memory.numel()
