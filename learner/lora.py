"""Low-rank adapters (https://arxiv.org/abs/2106.09685), by peft: injected for training, merged for everybody else.

Engines and checkpoints see ordinary weights under ordinary names: base + alpha / rank * B A, rounded to the compute
dtype. Steps smaller than that rounding reach the engine only once they have added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from services.schema.config.learner import LoraSettings
from services.schema.errors import RecipeError

_ADAPTER = "default"


def inject(model: nn.Module, settings: LoraSettings, seed: int) -> None:
    """Add adapters in place and freeze everything else. B starts at zero: the policy is the base model's.

    Raises RecipeError when no layer of the model has one of the target names, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RecipeError("learner.lora needs the package peft: pip install peft") from None
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=0.0,
        target_modules=list(settings.target_modules),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
        except ValueError as error:
            raise RecipeError(f"learner.lora.target_modules: {error}") from None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


@torch.no_grad()
def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor) of every weight, adapters merged in. A tied head is left out."""
    deltas: dict[str, Any] = {
        f"{name}.base_layer.weight": module
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")
    }
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        weight = parameter.detach()
        if name in deltas:
            module = deltas[name]
            low, high = (getattr(module, part)[_ADAPTER].weight.float() for part in ("lora_A", "lora_B"))
            weight = (weight.float() + module.scaling[_ADAPTER] * (high @ low)).to(weight.dtype)
        yield name.replace(".base_layer.", "."), weight
