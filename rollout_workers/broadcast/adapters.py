"""Adapters onto the model's own weights: what an engine loads when only adapters are broadcast.

The base is always read from the model's directory, never from the engine, which holds the merge before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from rayzero.services.schema.broadcast.adapters import LOW, halves, merge
from rayzero.services.schema.broadcast.weight_files import weight_files
from rayzero.services.schema.weights import WeightManifest

PART_BYTES = 64 * 2**20
"""Merged at a time where each part is loaded at once: one is repacked while the next is merged."""


class BaseWeights:
    """A model directory's tensors, mapped: only what is read comes into memory, and it is the page cache's."""

    def __init__(self, directory: Path, dtype: torch.dtype, aliases: Collection[str] = ()) -> None:
        """`aliases`: names to leave out, under which the model holds a tensor once more; see `checkpoint_shapes`."""
        self._dtype = dtype
        self._files: dict[str, Any] = {}
        for path in weight_files(directory):
            file: Any = safe_open(path, framework="pt")
            self._files |= {name: file for name in file.keys() if name not in aliases}  # noqa: SIM118

    @property
    def names(self) -> tuple[str, ...]:
        """Hugging Face names of all tensors."""
        return tuple(self._files)

    def read(self, name: str, device: torch.device) -> torch.Tensor:
        """One tensor in the engine's dtype; not to be written to, for it may be the file itself."""
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor.to(device).to(self._dtype)


class AdapterMerge:
    """Turns staged adapters into weights, and keeps count of the weights in which the engine differs from its base."""

    def __init__(self, base: BaseWeights, layers: Collection[str], fused: Mapping[str, Sequence[str]]) -> None:
        """`layers`: names of the engine's modules; `fused`: its `packed_modules_mapping`, e.g. qkv_proj -> q_proj, …"""
        self._base = base
        into = {part: name for name, parts in fused.items() for part in parts}
        self._layer_of = {name: _layer(name, into) for name in base.names}
        # An engine that names its modules otherwise is given all of its weights.
        self._by_layer = set(self._layer_of.values()) <= set(layers)
        self._changed: set[str] = set()

    def loaded(self, manifest: WeightManifest) -> None:
        """The engine holds this version now."""
        self._changed = set(self._base.names if manifest.adapter_scaling is None else _adapted(manifest))

    def names(self, manifest: WeightManifest) -> list[str]:
        """What must be loaded for this version, layer by layer: what has an adapter or had one, and whatever shares a
        layer of the engine with it, since a layer that is loaded in part would keep uninitialised memory in the rest.
        """
        by_layer = sorted(self._layer_of, key=lambda name: self._layer_of[name])
        if not self._by_layer:
            return by_layer
        touched = {self._layer_of[name] for name in self._changed | _adapted(manifest)}
        return [name for name in by_layer if self._layer_of[name] in touched]

    def layers(self, names: Iterable[str]) -> list[str] | None:
        """The engine's modules that these weights belong to; None: not known, so take it for all."""
        return sorted({self._layer_of[name] for name in names}) if self._by_layer else None

    def merged(
        self,
        names: Iterable[str],
        manifest: WeightManifest,
        staged: Iterable[tuple[str, torch.Tensor]],
        device: torch.device,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights `names` on `device`: base with its adapter, or the base alone where there is none."""
        factors = dict(staged)
        assert manifest.adapter_scaling is not None
        for name in names:
            weight = self._base.read(name, device)
            low, high = (factors.get(half) for half in halves(name))
            if low is not None and high is not None:
                weight = merge(weight, low.to(device), high.to(device), manifest.adapter_scaling)
            yield name, weight


def parts(
    tensors: Iterable[tuple[str, torch.Tensor]], part_bytes: int = PART_BYTES
) -> Iterator[dict[str, torch.Tensor]]:
    """The same, a few at a time: as soon as a part has `part_bytes`."""
    part: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        part[name] = tensor
        if sum(each.nbytes for each in part.values()) >= part_bytes:
            yield part
            part = {}
    if part:
        yield part


def _adapted(manifest: WeightManifest) -> set[str]:
    return {spec.name.removesuffix(LOW) for spec in manifest.tensors if spec.name.endswith(LOW)}


def _layer(weight: str, into: Mapping[str, str]) -> str:
    """The engine's module that a weight is loaded into: `…q_proj.weight` -> `…qkv_proj`."""
    parent, _, leaf = weight.rpartition(".")[0].rpartition(".")
    leaf = into.get(leaf, leaf)
    return f"{parent}.{leaf}" if parent else leaf
