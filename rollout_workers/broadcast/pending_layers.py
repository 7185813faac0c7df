"""Layers that vLLM has some of the tensors of: what it keeps of a bucket that is about to be written over.

vLLM makes a layer anew when all of its tensors are there (its layerwise reload), and until then keeps what came as it
came: views of the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info


def detach_pending(model: torch.nn.Module, bucket: torch.Tensor) -> int:
    """Copy what layers that wait for more keep of a bucket; how many bytes that was."""
    num_bytes, storage = 0, bucket.untyped_storage().data_ptr()
    copies: dict[int, torch.Tensor] = {}
    for arguments in _kept(model):
        for name, value in arguments.items():
            if isinstance(value, torch.Tensor) and not value.is_meta and _lies_in(value, storage):
                key = value.data_ptr()
                if key not in copies or copies[key].shape != value.shape:
                    copies[key] = value.clone()
                    num_bytes += value.nbytes
                arguments[name] = copies[key]
    return num_bytes


def _kept(model: torch.nn.Module) -> Iterator[dict[str, Any]]:
    for layer in model.modules():
        for _, bound in get_layerwise_info(layer).loaded_weights:
            yield bound.arguments


def _lies_in(tensor: torch.Tensor, storage: int) -> bool:
    return tensor.untyped_storage().data_ptr() == storage
