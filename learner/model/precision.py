"""The weights of a saved model in another precision: for those who take a run's model elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rayzero.learner.model.rounding import rounded


def convert(directory: Path, dtype: str) -> None:
    """Write a model directory's floating-point weights anew in `dtype` (`float16`, say), file by file, in place."""
    wanted: torch.dtype = getattr(torch, dtype)
    for file in directory.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        save_file(
            {
                name: rounded(weight, wanted) if weight.is_floating_point() else weight
                for name, weight in weights.items()
            },
            file,
            metadata,
        )
    file = directory / "config.json"
    if file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = dtype
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
