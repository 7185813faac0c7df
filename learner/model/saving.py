"""A model in Hugging Face format, written while it is put together: the host holds a part of it at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import torch

from rayzero.services.schema.broadcast.weight_files import INDEX_FILE
from rayzero.services.schema.broadcast.wire import plan_buckets

PART_BYTES = 2 * 2**30
"""Of a file; a larger tensor has one of its own."""


def save_weights(
    named: Iterable[tuple[str, torch.Tensor]],
    outline: Sequence[tuple[str, torch.Size]],
    dtype: torch.dtype,
    directory: Path,
    *,
    writes: bool,
) -> None:
    """Write `named` (whole tensors of `dtype`, those of `outline` in its order) as safetensors files with their index.

    Where ranks put the tensors together all of them must call it; one `writes`, the others keep nothing.
    """
    from safetensors.torch import save_file

    sizes = [shape.numel() * dtype.itemsize for _, shape in outline]
    extents, parts = plan_buckets(sizes, PART_BYTES)
    places = {name: extent.bucket for (name, _), extent in zip(outline, extents, strict=True)}
    files = [f"model-{part + 1:05d}-of-{len(parts):05d}.safetensors" for part in range(len(parts))]
    if len(files) == 1:
        files = ["model.safetensors"]
    for part, members in groupby(named, key=lambda item: places[item[0]]):
        held: dict[str, torch.Tensor] = {}
        for name, tensor in members:
            if writes:
                held[name] = tensor.to("cpu").contiguous()
            del tensor
        if writes:
            save_file(held, directory / files[part], metadata={"format": "pt"})
    if writes and len(files) > 1:
        weight_map = {name: files[place] for name, place in places.items()}
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (directory / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")
