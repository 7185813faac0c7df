"""Weights on their way in: a staging buffer, filled by a broadcast, proven by its manifest before any is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from rayzero.services.schema.broadcast.adapters import HIGH, LOW, halves
from rayzero.services.schema.broadcast.digest import LANES, PREFIX, digest, fingerprint_text, fingerprints
from rayzero.services.schema.broadcast.wire import Extent
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.messages import TensorSpec, WeightManifest

CPU = torch.device("cpu")

MAX_NAMED = 3
"""Tensors that an error names before it only counts."""


def checkpoint_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a Hugging Face checkpoint, from the headers of its safetensors files.

    Raises:
        WeightSyncError: there is no safetensors file.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise WeightSyncError(f"{directory} has no safetensors file: save the model with save_pretrained first")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def check_manifest(manifest: WeightManifest, expected: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    """Refuse a manifest that would leave a weight of the model old, misshapen or silently cast.

    `expected` is what the model was first loaded from: a tensor that is left out would keep its old values, and the
    engine would serve a mixture of two policies. Adapters alone must be whole, and fit the weights that they are for.

    Raises:
        WeightSyncError: names the tensors.
    """
    specs = {spec.name: spec for spec in manifest.tensors}
    if len(specs) != len(manifest.tensors):
        raise WeightSyncError("the manifest lists a tensor twice")
    shapes = {name: spec.shape for name, spec in specs.items()}
    if manifest.adapter_scaling is None:
        _check_whole(shapes, expected)
    else:
        _check_adapters(shapes, expected)
    for name, spec in specs.items():
        if spec.dtype != dtype:
            raise WeightSyncError(f"{name} comes as {spec.dtype}, the engine computes in {dtype}")
        if spec.offset_bytes + spec.num_bytes > manifest.bucket_bytes[spec.bucket]:
            raise WeightSyncError(f"{name} reaches beyond the end of bucket {spec.bucket}")


def _check_whole(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(expected.keys() - shapes.keys()):
        raise WeightSyncError(f"missing from the manifest: {_named(missing)}")
    if unknown := sorted(shapes.keys() - expected.keys()):
        raise WeightSyncError(f"not a weight of this model: {_named(unknown)}")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise WeightSyncError(f"{name} has shape {list(shape)}, the model has {list(expected[name])}")


def _check_adapters(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    adapted = {name.removesuffix(LOW).removesuffix(HIGH) for name in shapes}
    if not adapted:
        raise WeightSyncError("the manifest announces adapters and holds none")
    if unknown := sorted(adapted - expected.keys()):
        raise WeightSyncError(f"adapters of what is no weight of this model: {_named(unknown)}")
    wanted = {half for name in adapted for half in halves(name)}
    if whole := sorted(shapes.keys() - wanted):
        raise WeightSyncError(f"whole weights among adapters: {_named(whole)}")
    if missing := sorted(wanted - shapes.keys()):
        raise WeightSyncError(f"halves of adapters are missing from the manifest: {_named(missing)}")
    for name in sorted(adapted):
        low, high = (shapes[half] for half in halves(name))
        if len(low) != 2 or len(high) != 2 or high[1] != low[0] or (high[0], low[1]) != expected[name]:
            raise WeightSyncError(
                f"the adapter of {name} has shapes {list(low)} and {list(high)}, the model's weight "
                f"{list(expected[name])}"
            )


class StagingBuffer:
    """Room for one broadcast, kept from sync to sync: fresh pages would cost more than the transfer."""

    def __init__(self) -> None:
        self._memory = torch.zeros(0, dtype=torch.uint8)
        self._manifest: WeightManifest | None = None
        self._buckets: tuple[torch.Tensor, ...] = ()

    def lay_out(self, manifest: WeightManifest, device: torch.device = CPU) -> tuple[torch.Tensor, ...]:
        """One uint8 view a bucket on `device`, to be filled. What was staged before is gone."""
        if self._memory.numel() != manifest.num_bytes or self._memory.device != device:
            # Zeros, for what lies between tensors is part of a GPU's digest and of no message.
            self._memory = torch.zeros(manifest.num_bytes, dtype=torch.uint8, device=device)
        return self.use(manifest, self._memory)

    def fill(self, manifest: WeightManifest, memory: torch.Tensor) -> None:
        """Copy what has arrived elsewhere, all of it."""
        self.lay_out(manifest)
        self._memory.copy_(memory)

    def use(self, manifest: WeightManifest, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same on memory that is filled already.

        Raises:
            WeightSyncError: it is not as large as the manifest says.
        """
        if memory.numel() != manifest.num_bytes:
            raise WeightSyncError(f"{memory.numel()} bytes were sent, the manifest announces {manifest.num_bytes}")
        self._manifest = manifest
        self._buckets = torch.split(memory, list(manifest.bucket_bytes))
        return self._buckets

    def verify_bucket(self, bucket: int) -> None:
        """Hold every tensor of a filled bucket against the manifest.

        Raises:
            WeightSyncError: names the tensors whose bytes differ from what was announced.
        """
        specs = [spec for spec in self._announced.tensors if spec.bucket == bucket]
        if specs and specs[0].checksum.startswith(PREFIX):
            found = self._fingerprints(bucket, specs)
        else:
            found = [digest(self._bytes_of(spec)) for spec in specs]
        broken = [spec.name for spec, checksum in zip(specs, found, strict=True) if checksum != spec.checksum]
        if broken:
            raise WeightSyncError(f"bytes differ from what the learner announced: {_named(broken)}")

    def tensors(self, bucket: int | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of everything staged (in one bucket), as views of the buffer."""
        for spec in self._announced.tensors:
            if bucket is None or spec.bucket == bucket:
                yield spec.name, self._bytes_of(spec).view(getattr(torch, spec.dtype)).view(spec.shape)

    def _fingerprints(self, bucket: int, specs: list[TensorSpec]) -> list[str]:
        """As the learner's GPU computed them, wherever the bytes lie here."""
        words = self._buckets[bucket].view(torch.int32).view(-1, LANES)
        lanes, rows = (torch.arange(size, device=words.device) for size in (LANES, len(words)))
        extents = [Extent(bucket=bucket, offset_bytes=each.offset_bytes, num_bytes=each.num_bytes) for each in specs]
        return [fingerprint_text(total) for total in fingerprints(words, lanes, rows, extents).tolist()]

    @property
    def _announced(self) -> WeightManifest:
        if self._manifest is None:
            raise WeightSyncError("nothing is staged")
        return self._manifest

    def _bytes_of(self, spec: TensorSpec) -> torch.Tensor:
        return self._buckets[spec.bucket][spec.offset_bytes : spec.offset_bytes + spec.num_bytes]


def _named(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
