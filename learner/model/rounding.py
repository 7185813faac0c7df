"""fp32 weights in bfloat16, without losing steps that are smaller than bfloat16's.

In bfloat16 the next weight after 0.1 is 0.0005 away. Rounded to the nearest, a policy that began on bfloat16's grid
stays there until its updates add up to half of that; of what SmolLM2-135M learns in 24 updates at 2e-5 a quarter is
left then. Here each weight has a threshold of its own between the two, the same for ever: where a tenth of the way is
gone, a tenth of the weights has gone all of it. So what was learnt is whole on average, and what stands on the grid
stays. It is stochastic rounding (Gupta et al., https://arxiv.org/abs/1502.02551) with thresholds that are not drawn
anew.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LOST_BITS = 16
"""Of fp32's mantissa, in bfloat16."""
SPREAD = 40503
"""65,536 ÷ the golden ratio, odd: its multiples, modulo 65,536, are spread evenly whichever run of them is taken."""
CHUNK = 1 << 20
"""Weights at a time, a multiple of the thresholds' period: they and their thresholds stay in the cache."""


@torch.no_grad()
def rounded(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights in `dtype`, same shape: from fp32 to bfloat16 by thresholds, else to the nearest."""
    if dtype != torch.bfloat16 or weights.dtype != torch.float32:
        return weights.to(dtype)
    flat = weights.reshape(-1)
    found = torch.empty(flat.shape, dtype=dtype, device=weights.device)
    for start in range(0, len(flat), CHUNK):
        bits = flat[start : start + CHUNK].view(torch.int32)
        # Sign and magnitude: what is added pushes away from 0 past the threshold, and what is cut off falls towards 0.
        bits = (bits + _thresholds(weights.device)[: len(bits)]).bitwise_and_(-1 << LOST_BITS)
        found[start : start + CHUNK] = bits.view(torch.float32)
    return found.view(weights.shape)


@cache
def _thresholds(device: torch.device) -> Tensor:
    """One of 0 ... 65,535 for each weight of a chunk."""
    return torch.arange(CHUNK, dtype=torch.int32, device=device).mul_(SPREAD).bitwise_and_((1 << LOST_BITS) - 1)
