"""Ranks read their own rows and nothing else, and what they keep is what a whole model would have given them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rayzero.learner.model.rank_loading import ShardReader, build_without_memory
from tests.models import build_tiny_model
from tests.unit.learner.kit import build_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_all_ranks_together_are_the_model(tied: bool, tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path, tied=tied, redundant_head=tied)
    expected = load_file(path / "model.safetensors")
    whole: dict[str, list[torch.Tensor]] = {}
    for rank in range(3):
        model = build_without_memory(path)
        assert all(parameter.is_meta for parameter in model.parameters())
        assert not any(buffer.is_meta for buffer in model.buffers())
        reader = ShardReader(path, rank, 3, CPU)
        assert reader.reads(model)
        reader.fill(model)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        for name, parameter in model.named_parameters():
            chunks = torch.chunk(parameter.detach(), 3)
            whole.setdefault(name, []).append(chunks[rank] if rank < len(chunks) else parameter[:0])
    assert set(whole) == set(expected) - ({"lm_head.weight"} if tied else set())
    for name, rows in whole.items():
        assert torch.equal(torch.cat(rows), expected[name]), name


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3_moe"])
def test_experts_are_read_by_the_ranks_that_keep_them(architecture: str, tmp_path: Path) -> None:
    path = build_model(tmp_path, architecture)
    expected = dict(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).named_parameters())
    whole: dict[str, list[torch.Tensor]] = {}
    for rank in range(2):
        model = build_without_memory(path)
        reader = ShardReader(path, rank, 2, CPU)
        assert reader.reads(model)
        reader.fill(model)
        for name, parameter in model.named_parameters():
            whole.setdefault(name, []).append(torch.chunk(parameter.detach(), 2)[rank])
    assert set(whole) == set(expected)
    for name, rows in whole.items():
        assert torch.equal(torch.cat(rows), expected[name]), name


def test_a_checkpoint_that_lacks_an_expert_is_not_read_in_parts(tmp_path: Path) -> None:
    path = build_model(tmp_path, "mixtral")
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.block_sparse_moe.experts.3.w2.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert not ShardReader(path, 0, 2, CPU).reads(build_without_memory(path))


def test_a_checkpoint_with_other_names_or_shapes_is_loaded_whole_instead(tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path)
    tensors = load_file(path / "model.safetensors")
    norm = tensors.pop("model.norm.weight")
    save_file({**tensors, "norm.weight": norm}, path / "model.safetensors", metadata={"format": "pt"})
    assert not ShardReader(path, 0, 2, CPU).reads(build_without_memory(path))
    save_file(
        {**tensors, "model.norm.weight": norm[:-1].clone()}, path / "model.safetensors", metadata={"format": "pt"}
    )
    assert not ShardReader(path, 0, 2, CPU).reads(build_without_memory(path))
