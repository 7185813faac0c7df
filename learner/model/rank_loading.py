"""A model that several ranks share, read from disk by each of them for itself: no rank ever holds all of it.

It is built without memory (parameters on the meta device). Before a part of it is sharded its parameters are made, and
the rank fills in the rows that it will keep; the rest is never touched, and goes when the part has been sharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from rayzero.learner.model.experts import Part, parts_of
from rayzero.learner.model.rounded_shard import rows_of_a_rank
from rayzero.services.schema.broadcast.weight_files import weight_files


class ShardReader:
    """The files of a model directory, as one rank of several reads them."""

    def __init__(self, directory: Path, rank: int, world_size: int, device: torch.device) -> None:
        from safetensors import safe_open

        self._rank, self._world_size, self._device = rank, world_size, device
        self._files: dict[str, Any] = {}
        for path in weight_files(directory):
            file: Any = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(file.keys(), file)
        self._parts: dict[int, list[Part]] = {}
        """By the parameter's id: where it stands in the files."""

    def reads(self, model: nn.Module) -> bool:
        """Whether every parameter of a model without memory stands in the files by its own name and shape, or each of
        its experts does. Other checkpoints are converted when they are loaded; those must be loaded whole."""
        kind: str = model.config.model_type  # type: ignore[union-attr,assignment]
        self._parts = {
            id(parameter): parts_of(kind, name, parameter.shape) for name, parameter in model.named_parameters()
        }
        return all(
            part.name in self._files and tuple(self._slice(part).get_shape()) == tuple(part.shape)
            for parts in self._parts.values()
            for part in parts
        )

    @torch.no_grad()
    def fill(self, part: nn.Module) -> None:
        """Make the parameters of a part, and the rows of them that this rank keeps when it is sharded."""
        made: dict[int, nn.Parameter] = {}
        for module in part.modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_meta:
                    continue
                if id(parameter) not in made:  # a tied weight is one parameter of two modules
                    made[id(parameter)] = self._made(parameter)
                module._parameters[name] = made[id(parameter)]

    def _made(self, parameter: nn.Parameter) -> nn.Parameter:
        whole = torch.empty(parameter.shape, dtype=torch.float32, device=self._device)
        each = rows_of_a_rank(len(whole), self._world_size)
        start = min(self._rank * each, len(whole))
        rows = range(start, min(start + each, len(whole)))
        for part in self._parts[id(parameter)]:
            if part.expert is None and rows:
                whole[rows.start : rows.stop].copy_(self._slice(part)[rows.start : rows.stop])
            elif part.expert in rows:
                part.of(whole).copy_(self._slice(part)[:])
        return nn.Parameter(whole, requires_grad=parameter.requires_grad)

    def _slice(self, part: Part) -> Any:
        return self._files[part.name].get_slice(part.name)


def build_without_memory(directory: Path) -> Any:
    """The model of a directory, its parameters on the meta device; its buffers (rotary frequencies) are made."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    with _parameters_on_meta():
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """A layer makes its parameters as always, but before one is written to it is exchanged for its outline."""
    register: Any = nn.Module.register_parameter

    def outline(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    nn.Module.register_parameter = outline  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
