"""Weights in another precision; what is no floating-point number stays."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rayzero.learner.model.precision import convert
from rayzero.learner.model.rounding import rounded


def test_weights_and_config_say_the_new_precision(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2, 2), "ids": torch.ones(2, dtype=torch.int64)}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "float32", "hidden_size": 2}))
    convert(tmp_path, "float16")
    found = load_file(tmp_path / "model.safetensors")
    assert (found["a"].dtype, found["ids"].dtype) == (torch.float16, torch.int64)
    assert json.loads((tmp_path / "config.json").read_text()) == {"torch_dtype": "float16", "hidden_size": 2}


def test_bfloat16_keeps_small_steps(tmp_path: Path) -> None:
    """Rounded to the nearest, 2e-5 beside 0.1 would be gone from every weight."""
    trained = torch.full((1_000,), 0.10009765625 + 2e-5)
    save_file({"a": trained}, tmp_path / "model.safetensors")
    convert(tmp_path, "bfloat16")
    found = load_file(tmp_path / "model.safetensors")["a"]
    assert torch.equal(found, rounded(trained, torch.bfloat16)) and not torch.equal(found, trained.bfloat16())
