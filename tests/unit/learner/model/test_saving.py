"""Files of a few tensors each, written as they come; what is loaded from them is what was saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rayzero.learner.model import saving
from rayzero.learner.model.saving import save_weights
from rayzero.services.schema.broadcast.weight_files import INDEX_FILE, weight_files

SHAPES = {"a": (10, 4), "b": (3,), "c": (40, 4), "d": (10, 4)}


def named() -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for name, shape in SHAPES.items():
        yield name, torch.randn(shape, generator=generator).bfloat16()


OUTLINE = [(name, torch.Size(shape)) for name, shape in SHAPES.items()]


def test_a_file_a_part_and_an_index_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "PART_BYTES", 200)
    save_weights(named(), OUTLINE, torch.bfloat16, tmp_path, writes=True)
    files = weight_files(tmp_path)
    assert [file.name for file in files] == [f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    loaded = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in named()) and len(loaded) == len(SHAPES)
    assert json.loads((tmp_path / INDEX_FILE).read_text())["metadata"]["total_size"] == 2 * (40 + 3 + 160 + 40)


def test_one_file_needs_no_index_and_other_ranks_write_nothing(tmp_path: Path) -> None:
    gone_through: list[str] = []

    def noted() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in named():
            gone_through.append(name)
            yield name, tensor

    save_weights(noted(), OUTLINE, torch.bfloat16, tmp_path, writes=False)
    assert gone_through == list(SHAPES) and not list(tmp_path.iterdir()), "they take part in putting tensors together"
    save_weights(named(), OUTLINE, torch.bfloat16, tmp_path, writes=True)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
