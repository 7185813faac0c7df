"""Rounding to bfloat16: what stands on its grid stays, a part of the way is gone by that part of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rayzero.learner.model.rounding import CHUNK, PERIOD, rounded

ULP = 2.0**-11
"""Of bfloat16 from 1/16 to 1/8."""


def in_bf16(weights: Tensor) -> Tensor:
    return rounded(weights, torch.bfloat16)


def test_what_bfloat16_holds_stays_what_it_is() -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = every[torch.isfinite(every)]
    assert torch.equal(in_bf16(finite.float()), finite)
    assert in_bf16(torch.tensor([math.inf, -math.inf])).tolist() == [math.inf, -math.inf]
    assert in_bf16(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_part_of_the_way_is_gone_by_that_part_of_the_weights(share: float, sign: float) -> None:
    # 0.0625 + ULP is bfloat16's next after 0.0625. Rounded to the nearest, a tenth of the way is gone by no weight.
    found = in_bf16(torch.full((100_000,), sign * (0.0625 + share * ULP)))
    assert set(found.unique().abs().tolist()) == {0.0625, 0.0625 + ULP}
    moved = (found.abs() > 0.0625).float().mean()
    assert moved.item() == pytest.approx(share, abs=1e-3)


def test_small_steps_are_whole_on_average_where_the_nearest_loses_them() -> None:
    weights = (torch.randn(200_000, generator=torch.Generator().manual_seed(0)) / 10).bfloat16().float()
    step = 2e-5 * torch.sign(torch.randn(200_000, generator=torch.Generator().manual_seed(1)))
    kept = ((in_bf16(weights + step).float() - weights) @ step / (step @ step)).item()
    lost = (((weights + step).bfloat16().float() - weights) @ step / (step @ step)).item()
    assert kept == pytest.approx(1.0, abs=0.1) and lost < 0.5


def test_a_weight_moves_once_on_its_way() -> None:
    """Thresholds stay: a model that was trained on differs where it moved."""
    before = in_bf16(torch.full((10_000,), 0.0625 + 0.4 * ULP))
    after = in_bf16(torch.full((10_000,), 0.0625 + 0.5 * ULP))
    assert (before != after).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (after >= before).all()


def test_shapes_strides_and_sizes_over_a_chunk() -> None:
    weights = torch.randn(CHUNK // 512 + 3, 600)
    whole = in_bf16(weights)
    assert whole.shape == weights.shape
    assert torch.equal(whole.flatten()[:600], in_bf16(weights[0]))
    turned = weights.T.contiguous().T
    assert not turned.is_contiguous() and torch.equal(in_bf16(turned), whole)


def test_a_part_is_rounded_as_it_is_in_the_whole() -> None:
    weights = torch.randn(CHUNK + 5_000)
    whole = in_bf16(weights)
    for first, last in ((0, 10), (7, CHUNK + 7), (PERIOD - 1, PERIOD + 9), (CHUNK - 3, CHUNK + 5_000)):
        assert torch.equal(rounded(weights[first:last], torch.bfloat16, first), whole[first:last])
    assert not torch.equal(in_bf16(weights[7:1007]), whole[7:1007])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_round_to_the_nearest(dtype: torch.dtype) -> None:
    weights = torch.randn(1_000)
    assert torch.equal(rounded(weights, dtype), weights.to(dtype))
