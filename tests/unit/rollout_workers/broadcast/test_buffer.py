"""What arrives is what was announced, or it is named."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.broadcast import buffer as staging_module
from rayzero.rollout_workers.broadcast.adapters import BaseWeights
from rayzero.rollout_workers.broadcast.buffer import StagingBuffer, check_manifest, checkpoint_shapes
from rayzero.services.schema.broadcast.digest import Fingerprints, digest
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import WeightManifest
from tests.models import build_tiny_model

EXPECTED = {"embed": (7, 3), "norm": (3,), "head": (5, 3)}


def weights() -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(name, torch.randn(shape, generator=generator)) for name, shape in EXPECTED.items()]


def sent(dtype: torch.dtype = torch.float32, bucket_bytes: int = 100) -> tuple[WeightSender, WeightManifest]:
    sender = WeightSender(dtype, bucket_bytes=bucket_bytes)
    return sender, sender.prepare(weights(), 4)


def sent_from_a_gpu(dtype: torch.dtype) -> tuple[WeightSender, WeightManifest]:
    """What a learner on a GPU does, its buffer on the CPU."""
    sender = WeightSender(dtype, bucket_bytes=128)
    buffer = sender._buffer
    plain = sender.prepare(weights(), 4)
    buffer._device, buffer._host_is_current = torch.zeros(plain.num_bytes, dtype=torch.uint8), False
    checksums = buffer._fill_device([tensor for _, tensor in weights()])
    specs = [replace(spec, checksum=checksum) for spec, checksum in zip(plain.tensors, checksums, strict=True)]
    return sender, replace(plain, tensors=tuple(specs))


def arrive(staging: StagingBuffer, sender: WeightSender, manifest: WeightManifest) -> None:
    for index, bucket in enumerate(staging.lay_out(manifest)):
        bucket.copy_(sender._buffer.host_buckets[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_come_out_as_they_went_in(dtype: torch.dtype) -> None:
    sender, manifest = sent(dtype)
    staging = StagingBuffer()
    arrive(staging, sender, manifest)
    for index in range(len(manifest.bucket_bytes)):
        staging.verify_bucket(index)
    assert len(manifest.bucket_bytes) == 3
    for (name, tensor), (expected_name, expected) in zip(staging.tensors(), weights(), strict=True):
        assert name == expected_name
        assert torch.equal(tensor, expected.to(dtype))
    assert [name for name, _ in staging.tensors(bucket=1)] == ["norm"]


def test_every_flipped_bit_is_caught_and_its_tensor_named() -> None:
    sender, manifest = sent(bucket_bytes=2**20)
    staging = StagingBuffer()
    for spec in manifest.tensors:
        arrive(staging, sender, manifest)
        staging._buckets[0][spec.offset_bytes + spec.num_bytes - 1] ^= 128
        with pytest.raises(WeightSyncError, match=f"bytes differ.*{spec.name}$"):
            staging.verify_bucket(0)


def test_manifest_is_held_against_the_model() -> None:
    _, manifest = sent()
    check_manifest(manifest, EXPECTED, "float32")
    with pytest.raises(WeightSyncError, match="missing from the manifest: bias"):
        check_manifest(manifest, EXPECTED | {"bias": (3,)}, "float32")
    with pytest.raises(WeightSyncError, match="not a weight of this model: head"):
        check_manifest(manifest, {name: EXPECTED[name] for name in ("embed", "norm")}, "float32")
    with pytest.raises(WeightSyncError, match=r"norm has shape \[3\], the model has \[4\]"):
        check_manifest(manifest, EXPECTED | {"norm": (4,)}, "float32")
    with pytest.raises(WeightSyncError, match="embed comes as float32, the engine computes in bfloat16"):
        check_manifest(manifest, EXPECTED, "bfloat16")
    twice = replace(manifest, tensors=(*manifest.tensors, manifest.tensors[0]))
    with pytest.raises(WeightSyncError, match="twice"):
        check_manifest(twice, EXPECTED, "float32")
    short = replace(manifest, bucket_bytes=(*manifest.bucket_bytes[:-1], 8))
    with pytest.raises(WeightSyncError, match="head reaches beyond the end of bucket 2"):
        check_manifest(short, EXPECTED, "float32")


def test_many_names_are_counted_not_listed() -> None:
    _, manifest = sent()
    with pytest.raises(WeightSyncError, match=r"a, b, c and 2 more$"):
        check_manifest(manifest, EXPECTED | dict.fromkeys("edcba", (1,)), "float32")


def test_memory_is_kept_from_sync_to_sync_and_may_be_taken_before_the_first() -> None:
    sender, manifest = sent()
    staging = StagingBuffer()
    staging.reserve(manifest.num_bytes)
    before = staging.memory.data_ptr()
    for _ in range(2):
        arrive(staging, sender, manifest)
        assert staging.memory.data_ptr() == before


def test_memory_that_is_not_there_is_said_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*sizes: object, **options: object) -> torch.Tensor:
        if sizes != (0,):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(0, dtype=torch.uint8)

    staging = StagingBuffer()
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(WeightSyncError, match=r"cpu has no 3\.0 GiB left to stage .* lower rollout\.kv_cache_bytes"):
        staging.reserve(3 * 2**30)


def test_what_is_let_go_of_can_be_freed() -> None:
    sender, manifest = sent()
    staging = StagingBuffer()
    mapped = sender._buffer.memory.clone()
    freed = weakref.ref(mapped.untyped_storage())
    staging.use(manifest, mapped)
    del mapped
    assert freed() is not None
    staging.let_go()
    assert freed() is None
    with pytest.raises(WeightSyncError, match="nothing is staged"):
        list(staging.tensors())


def test_nothing_staged_is_an_error() -> None:
    with pytest.raises(WeightSyncError, match="nothing is staged"):
        list(StagingBuffer().tensors())


def test_shapes_are_read_from_the_checkpoints_headers(tmp_path: Path) -> None:
    with pytest.raises(WeightSyncError, match="no safetensors file"):
        checkpoint_shapes(tmp_path)
    shapes = checkpoint_shapes(build_tiny_model(tmp_path))
    assert shapes["model.embed_tokens.weight"] == (100, 64)
    assert "lm_head.weight" not in shapes, "tied"


def test_a_tied_head_that_the_file_holds_once_more_is_not_expected(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path, redundant_head=True)
    assert "lm_head.weight" in checkpoint_shapes(model)
    expected = checkpoint_shapes(model, {"lm_head.weight": "model.embed_tokens.weight"})
    assert "lm_head.weight" not in BaseWeights(model, torch.float32, {"lm_head.weight"}).names
    policy = Policy(model, dtype="float32")
    manifest = WeightSender(torch.float32).prepare(policy.sent_weights(), 1)
    check_manifest(manifest, expected, "float32")
    with pytest.raises(WeightSyncError, match=r"missing from the manifest: lm_head\.weight"):
        check_manifest(manifest, checkpoint_shapes(model), "float32")


def test_what_the_index_leaves_out_is_no_weight_of_the_model(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path)
    shapes = checkpoint_shapes(model)
    save_file({"layers.0.attention.wq.weight": torch.zeros(2, 2)}, model / "consolidated.safetensors")
    assert len(checkpoint_shapes(model)) == len(shapes) + 1
    index = {"weight_map": dict.fromkeys(shapes, "model.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert checkpoint_shapes(model) == shapes
    assert set(BaseWeights(model, torch.float32).names) == set(shapes)


@pytest.mark.parametrize("digests", ["xxh3", "sums"])
def test_what_lay_in_the_memory_before_does_not_matter(digests: str) -> None:
    sender, manifest = sent() if digests == "xxh3" else sent_from_a_gpu(torch.float32)
    staging = StagingBuffer()
    staging.reserve(manifest.num_bytes)
    staging.memory.fill_(255)
    arrive(staging, sender, manifest)
    assert manifest.num_bytes > sum(spec.num_bytes for spec in manifest.tensors), "there is room between the tensors"
    for bucket in range(len(manifest.bucket_bytes)):
        staging.verify_bucket(bucket)


def test_places_are_made_once_for_a_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    fingerprints = Fingerprints

    def counted(*arguments: Any) -> Any:
        made.append(len(arguments[0]))
        return fingerprints(*arguments)

    monkeypatch.setattr(staging_module, "Fingerprints", counted)
    sender, manifest = sent_from_a_gpu(torch.float32)
    staging = StagingBuffer()
    for _ in range(2):
        arrive(staging, sender, replace(manifest))
        for bucket in range(len(manifest.bucket_bytes)):
            staging.verify_bucket(bucket)
    assert made == [3]
    sender, manifest = sent_from_a_gpu(torch.bfloat16)
    arrive(staging, sender, manifest)
    staging.verify_bucket(0)
    assert made == [3, 3]


def test_digest_is_xxh3_64() -> None:
    assert digest(torch.zeros(0, dtype=torch.uint8)) == "2d06800538d394c2"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpus_digests_are_held_against_what_arrived_and_name_the_tensor(dtype: torch.dtype) -> None:
    sender, manifest = sent_from_a_gpu(dtype)
    arrived = zip(sender._buffer.tensors(), weights(), strict=True)
    assert all(torch.equal(sent, tensor.to(dtype)) for (_, sent), (_, tensor) in arrived)
    staging = StagingBuffer()
    arrive(staging, sender, manifest)
    for bucket in range(len(manifest.bucket_bytes)):
        staging.verify_bucket(bucket)
    for spec in manifest.tensors:
        for offset in (spec.offset_bytes, spec.offset_bytes + spec.num_bytes - 1):
            staging._buckets[spec.bucket][offset] ^= 64
            with pytest.raises(WeightSyncError, match=f"bytes differ.*{spec.name}$"):
                staging.verify_bucket(spec.bucket)
            staging._buckets[spec.bucket][offset] ^= 64
