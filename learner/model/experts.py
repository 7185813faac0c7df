"""Experts of a mixture as checkpoints and engines name them, one by one, and as transformers keeps them: all of a layer
in two parameters.

    mlp.experts.gate_up_proj [E, 2m, h]  ─►  E gates [m, h] and E ups [m, h]
    mlp.experts.down_proj    [E, h, m]   ─►  E downs [h, m]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_TOGETHER = ("gate_up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertNames:
    """What a family's checkpoints call them."""

    gate: str
    up: str
    down: str
    block: str = "mlp"
    """The part of a layer that holds experts and router; transformers calls it `mlp` in every family."""

    def parts(self, name: str, shape: torch.Size) -> list[Part]:
        """What the parameter called `name` is in a checkpoint, in the order in which it is sent."""
        owner, _, leaf = name.rpartition(".")
        named = owner.replace(".mlp", f".{self.block}", 1)
        if not owner.endswith(".experts") or leaf not in _TOGETHER:
            return [Part(name=f"{named}.{leaf}", shape=shape)]
        num_experts, rows, columns = shape
        kinds = (self.down,) if leaf == "down_proj" else (self.gate, self.up)
        each = rows // len(kinds)
        return [
            Part(
                name=f"{named}.{expert}.{kind}.weight",
                shape=torch.Size((each, columns)),
                expert=expert,
                start=index * each,
            )
            for expert in range(num_experts)
            for index, kind in enumerate(kinds)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One tensor of a checkpoint, and where in a parameter it lies."""

    name: str
    shape: torch.Size
    expert: int | None = None
    """None: it is the whole parameter."""
    start: int = 0
    """Its first row of the expert's."""

    def of(self, parameter: Tensor) -> Tensor:
        """A view of it."""
        return parameter if self.expert is None else parameter[self.expert, self.start : self.start + self.shape[0]]


EXPERT_NAMES: Mapping[str, ExpertNames] = {
    "mixtral": ExpertNames(gate="w1", up="w3", down="w2", block="block_sparse_moe"),
    "qwen3_moe": ExpertNames(gate="gate_proj", up="up_proj", down="down_proj"),
}
"""By `model_type`: the mixtures of services/planning/model_families.py."""


def parts_of(kind: str, name: str, shape: torch.Size) -> list[Part]:
    """What a parameter of a model of type `kind` is in a checkpoint: itself, where it is no mixture's."""
    names = EXPERT_NAMES.get(kind)
    return [Part(name=name, shape=shape)] if names is None else names.parts(name, shape)


def is_mixture(kind: str) -> bool:
    """Whether models of type `kind` have experts."""
    return kind in EXPERT_NAMES


def active_parameters(layer: nn.Module, config: Any) -> float:
    """Those that one token is multiplied by: of the experts, the share that it is sent to."""
    total = 0.0
    for name, parameter in layer.named_parameters():
        together = ".experts." in f".{name}"
        total += parameter.numel() * (config.num_experts_per_tok / parameter.shape[0] if together else 1.0)
    return total
