"""What the machine can do at best, on machines that cannot do all of it."""

from __future__ import annotations

import pytest

from rayzero.services.bench import limits


def test_a_slow_product_is_not_made_in_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def rate(size: int, dtype: object, device: str) -> float:
        sizes.append(size)
        return 1e9 if "bfloat16" in str(dtype) else 1e11

    monkeypatch.setattr(limits, "_product_rate", rate)
    monkeypatch.setattr(limits, "copy_rate", lambda device: 1e10)
    found = limits.measure_limits()
    assert sizes == [256, 256, 2048]
    assert (found.gemm_bf16_flops, found.gemm_fp32_flops) == (1e9, 1e11)
