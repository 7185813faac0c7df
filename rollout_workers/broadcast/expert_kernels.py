"""Experts on a CPU are repacked for vLLM's matrix kernels when they are first loaded, and by vLLM then alone: what is
loaded later would be computed with in a layout that the kernel does not read, and give other tokens without an error.
"""

from __future__ import annotations

import torch
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod


def repack_when_loaded(model: torch.nn.Module, device: torch.device) -> None:
    """Have the next load of each layer of experts repack it, as the first did: without its kernel vLLM takes it for
    that. Call it after vLLM's layers are made ready, when all weights will come; the engine stands still until then.
    """
    if device.type != "cpu":
        return
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, UnquantizedFusedMoEMethod):
            method.moe_kernel = None
