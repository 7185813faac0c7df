"""The bench of everything: what it writes, what it needs, and that a part which cannot run says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import all as bench
from benchmarks.parts import head, packed_attention, rollout_limit
from rayzero.services.bench.limits import MachineLimits
from rayzero.services.planning.published_shapes import PUBLISHED

LIMITS = MachineLimits(gemm_bf16_flops=1e12, gemm_fp32_flops=1e11, copy_bytes_per_s=4e12)


def test_decode_bound_is_bandwidth_at_small_batches_and_products_at_large_ones() -> None:
    shape = PUBLISHED["Qwen/Qwen2.5-0.5B"]
    read = 2 * shape.num_parameters + 8 * 100 * 12288
    assert rollout_limit(shape, LIMITS, 8, 100) == pytest.approx(8 / max(read / 4e12, 16 * shape.num_parameters / 1e12))
    fast = MachineLimits(gemm_bf16_flops=1e18, gemm_fp32_flops=1e17, copy_bytes_per_s=4e12)
    assert rollout_limit(shape, fast, 8, 100) == pytest.approx(8 / (read / 4e12))


def test_head_and_attention_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = head(bench.SMALL, "cpu", LIMITS, 64)
    assert figures["tokens_per_s"] > 0 and figures["overhead_of_products"] > -1
    figures = packed_attention(bench.SMALL, "cpu", LIMITS, "demo")
    assert figures["share_of_gemm_peak"] > 0


def test_a_part_that_cannot_run_is_listed_as_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Any, folder: Path) -> None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    monkeypatch.setattr(bench.Bench, "_rollout", absent)
    monkeypatch.setattr(bench.Bench, "_head", lambda self: 1 / 0)
    monkeypatch.setattr(bench.Bench, "_pipeline", lambda self: {
        "strict": {"shared_efficiency": 0.99}, "overlapped": {"disjoint_efficiency": 0.5},
    })  # fmt: skip
    table = bench.run("cpu", "small", ("rollout", "head", "pipeline"), tmp_path)
    text = table.read_text()
    assert "| rollout | not measured: vllm is not installed | | |" in text
    assert "| head | not measured: ZeroDivisionError: division by zero | | |" in text
    assert "99.0% of 1/(1/R + 1/L)" in text
    report = json.loads((tmp_path / "bench_cpu.json").read_text())
    assert report["figures"].keys() == {"pipeline"}
    assert report["not_measured"].keys() == {"rollout", "head"}


def test_no_gpu_is_an_error_and_no_empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="nothing was measured"):
        bench.run("cuda", None, bench.PARTS, tmp_path)
    with pytest.raises(ValueError, match=r"no shape is called 9B: small, Qwen"):
        bench.run("cpu", "9B", bench.PARTS, tmp_path)
    assert not list(tmp_path.iterdir())
