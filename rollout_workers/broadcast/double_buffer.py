"""A second set of a CPU model's weights: loaded and repacked beside generation, then exchanged for the first.

vLLM's way to load new weights takes the model's layers apart, so the engine stands still while they are copied and
repacked for the CPU's matrix kernels. Here both happen on second copies of the layers; between two steps of the engine
only references change hands. Costs the memory of one more set.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import materialize_meta_tensor, to_meta_tensor
from vllm.model_executor.model_loader.reload.sanitize import restore_layer_refs

from rayzero.services.schema.errors import WeightSyncError

PACKED = "cpu_linear"
"""The attribute in which vLLM keeps a layer's matrix kernel with its repacked weight."""


class DoubleBuffer:
    """Begin, load all parts, repack their layers, exchange: the last in the engine's own thread.

    What no part was loaded into is not exchanged: it stays what it is, whatever an earlier load left in its second
    copy.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._backs: dict[torch.nn.Module, torch.nn.Module] = {}
        self._parameters: dict[int, torch.Tensor] = {}
        self._model = self._back_of(model)
        self._packed = {live: back for live, back in self._backs.items() if _is_packed(live)}
        self._unpacked: set[str] = set()
        self._retired: list[object] = []
        self._loaded: set[str] = set()
        for live in list(self._packed):
            if _only_looked_up(live, model):
                del self._packed[live]
                # A kernel that is not called keeps the first weights: a call of it must fail.
                self._backs[live].__dict__.pop(PACKED, None)
                live.__dict__.pop(PACKED, None)
        self._names = {name: self._backs[live] for name, live in model.named_modules() if live in self._packed}
        own = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        self._tied = {
            name: names[id(back._parameters["weight"])] for name, back in self._names.items() if name not in own
        }
        """Layers whose weight has the name of another's, and that name: nothing is loaded into them by their own."""
        self._fresh_layers: set[torch.nn.Module] = set()
        self._fresh_parameters: set[int] = set()

    @staticmethod
    def supports(model: torch.nn.Module) -> bool:
        """Whether every layer keeps its weights in a way that is known here: plain linear layers and embeddings."""
        methods = {type(module.quant_method) for module in model.modules() if hasattr(module, "quant_method")}
        return methods <= {UnquantizedLinearMethod, UnquantizedEmbeddingMethod}

    def begin(self) -> None:
        """Forget what an earlier load left behind."""
        self.retire()
        self._loaded.clear()
        self._unpacked.clear()

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
        """Copy a part of a checkpoint into the second copies; returns the layers to `repack`, which may run beside the
        next.

        The next part may go on with a layer that this one has begun, so the layers of this part wait for the next.
        """
        names: set[str] = self._model.load_weights(tensors)  # type: ignore[operator]
        self._loaded |= names
        touched = {name.rpartition(".")[0] for name in names}
        complete = self._unpacked - touched
        self._unpacked = touched
        return sorted(complete)

    @torch.no_grad()
    def repack(self, layers: Iterable[str]) -> None:
        """Make the matrix kernels of these layers from what was loaded into them."""
        for name in layers:
            if (back := self._names.get(name)) is not None:
                weight = back._parameters["weight"]
                back.quant_method.process_weights_after_loading(back)  # type: ignore[union-attr,operator]
                back._parameters["weight"] = weight  # repacking lets go of it; the next load fills it

    def rest(self, *, whole: bool = True) -> list[str]:
        """When all parts are loaded: the layers still to be repacked, heads that share another's weight included.

        Raises:
            WeightSyncError: a parameter of the model was in no part; with `whole` off, one of a layer of which another
                parameter was.
        """
        parameters = dict(self._model.named_parameters())
        layers = {name.rpartition(".")[0] for name in self._loaded}
        wanted = {name for name in parameters if whole or name.rpartition(".")[0] in layers}
        if left_out := wanted - self._loaded:
            raise WeightSyncError(f"no tensor was loaded into {', '.join(sorted(left_out))}")
        tied = {name for name, weight in self._tied.items() if weight in self._loaded}
        self._fresh_layers = {self._names[name] for name in layers | tied if name in self._names}
        self._fresh_parameters = {id(parameter) for name, parameter in parameters.items() if name in self._loaded}
        return sorted(self._unpacked | tied)

    def swap(self) -> None:
        """Let the model compute with what was loaded last; call it between two steps."""
        for live, back in self._packed.items():
            if back not in self._fresh_layers:
                continue
            self._retired.append(live.__dict__[PACKED])  # freed by `retire`
            live.__dict__[PACKED] = back.__dict__[PACKED]
        done: set[int] = set()
        for live, back in self._backs.items():
            for name, parameter in live._parameters.items():
                other = back._parameters[name]
                if parameter is None or other is None or parameter.numel() == 0 or id(parameter) in done:
                    continue
                if id(other) not in self._fresh_parameters:
                    continue
                done.add(id(parameter))
                parameter.data, other.data = other.data, parameter.data

    def retire(self) -> None:
        """Free what was exchanged last. Takes time: not in the pause."""
        self._retired.clear()

    def _back_of(self, live: torch.nn.Module) -> torch.nn.Module:
        """A shallow copy of a module and its children, with parameters of their own."""
        if live in self._backs:
            return self._backs[live]
        back = copy.copy(live)
        self._backs[live] = back
        back._parameters = dict(self._parameters_of(live, back))
        back._modules = {name: child and self._back_of(child) for name, child in live._modules.items()}
        return back

    def _parameters_of(self, live: torch.nn.Module, back: torch.nn.Module) -> Iterator[tuple[str, Any]]:
        recorded, _ = get_layerwise_info(live).restore_metadata
        for name, parameter in live._parameters.items():
            if parameter is None:
                yield name, None
                continue
            if id(parameter) not in self._parameters:
                as_loaded = recorded.get(name, None)
                empty = materialize_meta_tensor(to_meta_tensor(parameter) if as_loaded is None else as_loaded)
                self._parameters[id(parameter)] = restore_layer_refs(empty, back)
            yield name, self._parameters[id(parameter)]  # a tied weight has one second copy, too


def _is_packed(module: torch.nn.Module) -> bool:
    return PACKED in module.__dict__ and "weight" in module._parameters


def _only_looked_up(module: torch.nn.Module, model: torch.nn.Module) -> bool:
    """An embedding that is not the output head: vLLM repacks it all the same."""
    if not isinstance(module, VocabParallelEmbedding) or isinstance(module, ParallelLMHead):
        return False
    names = [name for name, other in model.named_modules(remove_duplicate=False) if other is module]
    return len(names) == 1 and any(isinstance(other, ParallelLMHead) for other in model.modules())
