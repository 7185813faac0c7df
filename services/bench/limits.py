"""What this machine can do at best: matrix products and memory, measured before anything is called fast or slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SIZES = {"cpu": 2048, "cuda": 8192}
_SMALL, _SLOW_FLOPS = 256, 5e9
"""A processor that has no bf16 products makes them so slowly that those of the full size take ten minutes."""
_COPY_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """The best of several short runs; a busy machine shows less."""

    gemm_bf16_flops: float
    """bf16 matrix products, FLOP/s."""
    gemm_fp32_flops: float
    """fp32 matrix products, FLOP/s."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written by a large copy, a second."""

    def gemm_flops(self, dtype: str) -> float:
        """The peak in a dtype."""
        return self.gemm_bf16_flops if dtype == "bfloat16" else self.gemm_fp32_flops


def measure_limits(device: str = "cpu") -> MachineLimits:
    """About a second on CPU."""
    return MachineLimits(
        gemm_bf16_flops=_gemm(torch.bfloat16, device),
        gemm_fp32_flops=_gemm(torch.float32, device),
        copy_bytes_per_s=copy_rate(device),
    )


def copy_rate(device: str) -> float:
    """Bytes read plus bytes written by a large copy, a second."""
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * _COPY_BYTES / best_seconds(lambda: target.copy_(source), device)


def best_seconds(work: Callable[[], object], device: str, repeats: int = 5) -> float:
    """Shortest of several runs, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _gemm(dtype: torch.dtype, device: str) -> float:
    small = _product_rate(_SMALL, dtype, device)
    return small if small < _SLOW_FLOPS else _product_rate(_SIZES[device], dtype, device)


def _product_rate(size: int, dtype: torch.dtype, device: str) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: a @ b, device)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
