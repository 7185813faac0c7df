"""Layers of experts lose their kernel on a CPU before a load, so that vLLM repacks them; all others keep theirs."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

from rayzero.rollout_workers.broadcast.expert_kernels import repack_when_loaded


def model_of(method: Any) -> tuple[torch.nn.Module, Any]:
    """One layer, and how it keeps its weights."""
    method.moe_kernel = "packed"
    layer: Any = torch.nn.Module()
    layer.quant_method = method
    return torch.nn.ModuleList([layer, torch.nn.Linear(2, 2)]), method


class Other:
    """Some other way to keep weights."""


def test_experts_on_a_cpu_are_repacked_and_nothing_else_is() -> None:
    experts = UnquantizedFusedMoEMethod.__new__(UnquantizedFusedMoEMethod)
    torch.nn.Module.__init__(experts)
    for method, device, kernel in ((experts, "cuda", "packed"), (experts, "cpu", None), (Other(), "cpu", "packed")):
        model, kept = model_of(method)
        repack_when_loaded(model, torch.device(device))
        assert kept.moe_kernel == kernel, (method, device)
