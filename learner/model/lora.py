"""Low-rank adapters (https://arxiv.org/abs/2106.09685), by peft: injected for training, merged for all other uses.

Engines are sent the adapters alone, in the compute dtype, and add them to their own copy of the base; checkpoints see
ordinary weights under ordinary names. Both are base + alpha / rank * B A, rounded to the compute dtype: steps smaller
than that rounding reach the engine only once they have added up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rayzero.learner.model.experts import is_mixture
from rayzero.learner.model.ranks import full
from rayzero.services.schema.broadcast.adapters import halves, merge
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.errors import RecipeError

_ADAPTER = "default"
PEFT_WEIGHTS = "adapter_model.safetensors"


def inject(model: Any, settings: LoraSettings, seed: int) -> None:
    """Add adapters in place and freeze everything else. B starts at zero: the policy is the base model's.

    Raises RecipeError when no layer of the model has one of the target names, naming it, it is a mixture of experts, or
    peft is not installed.
    """
    if is_mixture(model.config.model_type):
        raise RecipeError(
            f"learner.lora: {model.config.model_type} is a mixture of experts, trained whole: leave it out"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RecipeError("learner.lora needs the package peft: pip install 'rayzero[cpu]'") from None
    linear = _linear_layers(model)
    if unknown := set(settings.target_modules) - linear:
        # peft would pass over a name that no layer has, as long as another one is found.
        raise RecipeError(
            f"learner.lora.target_modules: no linear layer is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(linear))}"
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=0.0,
        target_modules=sorted(settings.target_modules or linear),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


@torch.no_grad()
def merged_weights(model: nn.Module, dtype: torch.dtype, scaling: float) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor) of every weight in `dtype`, adapters merged in. A tied head is left out.

    Rounded before they are merged, too: the result is the same whether ranks keep fp32 parameters or one keeps bf16.
    """
    adapted = _adapted(model)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        weight = full(parameter.detach().to(dtype))
        if name in adapted:
            low, high = _factors(adapted[name], dtype)
            weight = merge(weight, low, high, scaling)
        yield _plain(name), weight


@torch.no_grad()
def adapters(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name on the wire, tensor) of A and B of every adapter, in `dtype`."""
    adapted = _adapted(model)
    for name, _ in model.named_parameters():
        if name in adapted:
            yield from zip(halves(_plain(name)), _factors(adapted[name], dtype), strict=True)


def base_shapes(model: nn.Module) -> list[tuple[str, torch.Size]]:
    """(Hugging Face name, whole shape) of what `merged_weights` yields, in its order."""
    return [(_plain(name), weight.shape) for name, weight in model.named_parameters() if ".lora_" not in name]


def adapter_shapes(model: nn.Module) -> list[tuple[str, torch.Size]]:
    """(name on the wire, whole shape) of what `adapters` yields, in its order."""
    adapted = _adapted(model)
    return [
        (name, getattr(adapted[weight], part)[_ADAPTER].weight.shape)
        for weight, _ in model.named_parameters()
        if weight in adapted
        for name, part in zip(halves(_plain(weight)), ("lora_A", "lora_B"), strict=True)
    ]


def peft_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name in a PEFT directory, tensor) of A and B of every adapter; where ranks shard the model all must ask."""
    for name, weight in adapters(model, dtype):
        layer, _, half = name.rpartition(".")
        yield f"base_model.model.{layer.removesuffix('.weight')}.{half}.weight", weight


def write_peft(directory: Path, weights: dict[str, Tensor], settings: LoraSettings, base: Path) -> None:
    """Adapters alone, as `peft.PeftModel.from_pretrained` and vLLM load them beside the base model."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous().cpu() for name, weight in weights.items()}, directory / PEFT_WEIGHTS)
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in weights}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(layers),
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _linear_layers(model: Any) -> set[str]:
    """What the linear layers of the decoder layers are called."""
    return {
        name.rpartition(".")[2] for name, module in model.model.layers.named_modules() if isinstance(module, nn.Linear)
    }


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Layers with an adapter by the name of the weight below it."""
    return {
        f"{name}.base_layer.weight": module
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")
    }


def _factors(module: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A and B; where ranks shard the model all of them must ask."""
    low, high = (full(getattr(module, part)[_ADAPTER].weight.detach().to(dtype)) for part in ("lora_A", "lora_B"))
    return low, high


def _plain(name: str) -> str:
    return name.replace(".base_layer.", ".")
