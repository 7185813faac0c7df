"""fp32 weights in bfloat16, without losing steps that are smaller than bfloat16's: what a learner in bfloat16 computes
with and sends, and what is exported.

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
PERIOD = 1 << LOST_BITS
"""Weights after which the thresholds come again."""
CHUNK = PERIOD << 4
"""Weights at a time: they and their thresholds stay in the cache."""


@torch.no_grad()
def rounded(weights: Tensor, dtype: torch.dtype, first: int = 0) -> Tensor:
    """The weights in `dtype`, same shape: from fp32 to bfloat16 by thresholds, else to the nearest.

    `first`: where the first of them stands in its parameter, so that a part is rounded as it is in the whole.
    """
    if dtype != torch.bfloat16 or weights.dtype != torch.float32:
        return weights.to(dtype)
    flat = weights.reshape(-1)
    found = torch.empty(flat.shape, dtype=dtype, device=weights.device)
    thresholds = _thresholds(weights.device)[first % PERIOD :]
    for start in range(0, len(flat), CHUNK):
        bits = flat[start : start + CHUNK].view(torch.int32)
        # Sign and magnitude: what is added pushes away from 0 past the threshold, and what is cut off falls towards 0.
        bits = (bits + thresholds[: len(bits)]).bitwise_and_(-1 << LOST_BITS)
        found[start : start + CHUNK] = bits.view(torch.float32)
    return found.view(weights.shape)


@cache
def _thresholds(device: torch.device) -> Tensor:
    """One of 0 ... 65,535 for each weight of a chunk, wherever in the period it begins."""
    count = torch.arange(CHUNK + PERIOD, dtype=torch.int32, device=device)
    return count.mul_(SPREAD).bitwise_and_(PERIOD - 1)
