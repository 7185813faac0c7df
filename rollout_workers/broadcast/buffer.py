"""Weights on their way in: a staging buffer, filled by a broadcast, proven by its manifest before any is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open

from rayzero.rollout_workers.broadcast.delta import apply_delta
from rayzero.services.schema.broadcast.adapters import HIGH, LOW, halves
from rayzero.services.schema.broadcast.digest import LANES, PREFIX, Fingerprints, digest, fingerprint_text
from rayzero.services.schema.broadcast.weight_files import weight_files
from rayzero.services.schema.broadcast.wire import Extent
from rayzero.services.schema.errors import WeightSyncError
from rayzero.services.schema.weights import TensorSpec, WeightManifest

CPU = torch.device("cpu")

MAX_NAMED = 3
"""Tensors that an error names before it only counts."""


def checkpoint_shapes(directory: Path, aliases: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a Hugging Face checkpoint, from the headers of its safetensors files.

    `aliases` are left out: names under which the model holds a tensor once more. A tied output head is in some
    published checkpoints (Qwen3-0.6B's) and in others not; the learner sends the embedding alone.

    Raises:
        WeightSyncError: there is no safetensors file.
        RecipeError: the checkpoint's index cannot be read.
    """
    files = weight_files(directory)
    if not files:
        raise WeightSyncError(f"{directory} has no safetensors file: save the model with save_pretrained first")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return {name: shape for name, shape in shapes.items() if name not in aliases}


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
        self._own = torch.empty(0, dtype=torch.uint8)
        self.content: str | None = None
        """What its own memory holds whole and proven: a delta can start from it."""
        self._manifest: WeightManifest | None = None
        self._buckets: list[torch.Tensor] = []
        self._specs: dict[int, list[TensorSpec]] = {}
        """By bucket."""
        self._layout: tuple[Extent, ...] = ()
        """One object as long as nothing moves, so that to compare it costs nothing."""
        self._fingerprints: tuple[object, Fingerprints] | None = None
        """Of the layout and device that they were made for."""

    def reserve(self, num_bytes: int, device: torch.device = CPU) -> None:
        """Take memory for a broadcast of `num_bytes`, if there is not as much of it. What was staged before is gone.

        Raises:
            WeightSyncError: the GPU has not so much left; says what would help.
        """
        if self._own.numel() == num_bytes and self._own.device == device:
            return
        self.let_go()
        self.content = None
        self._own = torch.empty(0, dtype=torch.uint8)  # the old one first: there is no room for two
        try:
            # Not zeroed: all of it is overwritten, what lies between the tensors included.
            self._own = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError:
            raise WeightSyncError(
                f"{device} has no {num_bytes / 2**30:.1f} GiB left to stage new weights in: lower "
                "rollout.kv_cache_bytes or rollout.max_num_seqs"
            ) from None
        if device.type == "cuda":
            # Bytes arrive on another stream: what this one still does with the memory of before must not meet them.
            torch.cuda.current_stream(device).synchronize()

    def lay_out(self, manifest: WeightManifest, device: torch.device = CPU) -> tuple[torch.Tensor, ...]:
        """One uint8 view a bucket on `device`, to be filled. What was staged before is gone."""
        self.reserve(manifest.num_bytes, device)
        return self.use(manifest, self._own)

    def fill(self, manifest: WeightManifest, memory: torch.Tensor) -> None:
        """Copy what has arrived elsewhere, all of it."""
        self.lay_out(manifest)
        self._own.copy_(memory)

    def use(self, manifest: WeightManifest, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same on memory that is filled already.

        Raises:
            WeightSyncError: it is not as large as the manifest says.
        """
        if memory.numel() != manifest.num_bytes:
            raise WeightSyncError(
                f"{memory.numel()} bytes were sent, and the manifest announces {manifest.num_bytes} bytes"
            )
        self.expect(manifest)
        self._buckets = list(torch.split(memory, list(manifest.bucket_bytes)))
        return tuple(self._buckets)

    def change(self, manifest: WeightManifest, delta: torch.Tensor) -> None:
        """Make the version of `manifest` out of the one that is held; `delta` [n] uint8 as the learner made it.

        Raises:
            WeightSyncError: it holds another version than the delta starts from.
        """
        if self.content != manifest.since or self._own.numel() != manifest.num_bytes:
            raise WeightSyncError(f"a delta from version {manifest.since} came, and {self.content} is staged")
        self.content = None
        apply_delta(self._own.view(torch.int16), delta)
        self.use(manifest, self._own)

    def prove(self) -> None:
        """Every bucket has been verified."""
        in_own = self._own.numel() > 0 and self._buckets[0].data_ptr() == self._own.data_ptr()
        self.content = self._announced.content if in_own else None

    def expect(self, manifest: WeightManifest) -> None:
        """Without memory: `place` says of each bucket where it lies."""
        self._manifest, self.content = manifest, None
        self._buckets = [torch.empty(0, dtype=torch.uint8)] * len(manifest.bucket_bytes)
        self._specs = {bucket: [] for bucket in range(len(self._buckets))}
        for spec in manifest.tensors:
            self._specs[spec.bucket].append(spec)
        layout = tuple(map(_extent, manifest.tensors))
        if layout != self._layout:
            self._layout = layout

    def place(self, bucket: int, memory: torch.Tensor) -> None:
        """Where one bucket [bytes] uint8 lies, until the next one does."""
        self._buckets = [torch.empty(0, dtype=torch.uint8)] * len(self._buckets)
        self._buckets[bucket] = memory

    def keep(self, bucket: int, memory: torch.Tensor) -> None:
        """Copy one bucket [bytes] uint8 into the room that it has since `lay_out`."""
        self._buckets[bucket].copy_(memory)

    def let_go(self) -> None:
        """Forget what is staged, so that memory of others which it lies in can be unmapped."""
        self._manifest, self._buckets, self._specs = None, [], {}

    @property
    def memory(self) -> torch.Tensor:
        """[num_bytes] uint8: its own."""
        return self._own

    def verify_bucket(self, bucket: int, digests: Sequence[str] | None = None) -> None:
        """Hold every tensor of a filled bucket against the manifest; or against `digests`, which came with it.

        Raises:
            WeightSyncError: names the tensors whose bytes differ from what was announced.
        """
        specs = self._specs[bucket]
        announced = [spec.checksum for spec in specs] if digests is None else list(digests)
        if len(announced) != len(specs):
            raise WeightSyncError(
                f"bucket {bucket} has {len(specs)} tensors, and {len(announced)} digests came with it"
            )
        if announced and announced[0].startswith(PREFIX):
            found = self._sums(bucket)
        else:
            found = [digest(self._bytes_of(spec)) for spec in specs]
        broken = [spec.name for spec, ours, theirs in zip(specs, found, announced, strict=True) if ours != theirs]
        if broken:
            raise WeightSyncError(f"bytes differ from what the learner announced: {_named(broken)}")

    def tensors(self, bucket: int | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of everything staged (in one bucket), as views of the buffer."""
        for spec in self._announced.tensors if bucket is None else self._specs[bucket]:
            yield spec.name, self._bytes_of(spec).view(getattr(torch, spec.dtype)).view(spec.shape)

    def _sums(self, bucket: int) -> list[str]:
        """As the learner's GPU computed them, wherever the bytes lie here."""
        words = self._buckets[bucket].view(torch.int32).view(-1, LANES)
        if self._fingerprints is None or self._fingerprints[0] != (self._layout, words.device):
            array = partial(torch.tensor, dtype=torch.int64, device=words.device)
            self._fingerprints = (self._layout, words.device), Fingerprints(self._layout, array)
        return [fingerprint_text(total) for total in self._fingerprints[1].of_bucket(bucket, words).tolist()]

    @property
    def _announced(self) -> WeightManifest:
        if self._manifest is None:
            raise WeightSyncError("nothing is staged")
        return self._manifest

    def _bytes_of(self, spec: TensorSpec) -> torch.Tensor:
        return self._buckets[spec.bucket][spec.offset_bytes : spec.offset_bytes + spec.num_bytes]


def _extent(spec: TensorSpec) -> Extent:
    return Extent(bucket=spec.bucket, offset_bytes=spec.offset_bytes, num_bytes=spec.num_bytes)


def _named(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
