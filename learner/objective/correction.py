"""Off-policy correction: how much each token counts, given what the engine that sampled it said of it.

All take log pi_old and log pi_rollout [n] and the tokens' completions, and return detached weights [n]. A sampler's
-inf counts as an infinite ratio: the limit where weights are truncated, out where they are masked. NaN always counts 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rayzero.services.schema.config.learner import (
    GeometricRejection,
    IcePop,
    NoCorrection,
    SequenceTruncation,
    TokenTruncation,
)


def correction_weights(old: Tensor, rollout: Tensor, samples: Tensor, num_samples: int, settings: Any) -> Tensor:
    """[n] weights by `settings.name`. old, rollout [n]; samples [n] int64 in [0, num_samples)."""
    log_ratio = (old - rollout).detach()
    unknown = log_ratio.isnan()
    # In a sum over a completion one NaN would take the other tokens with it.
    weights = CORRECTIONS[settings.name](log_ratio.masked_fill(unknown, 0.0), samples, num_samples, settings)
    return weights.masked_fill(unknown, 0.0)


def token_truncation(log_ratio: Tensor, samples: Tensor, num_samples: int, settings: TokenTruncation) -> Tensor:
    """min(pi_old / pi_rollout, limit) a token (https://fengyao.notion.site/off-policy-rl)."""
    return torch.exp(log_ratio).clamp(max=settings.limit)


def sequence_truncation(log_ratio: Tensor, samples: Tensor, num_samples: int, settings: SequenceTruncation) -> Tensor:
    """min(prod_t pi_old / pi_rollout, limit), the same for all tokens of a completion."""
    sums = log_ratio.new_zeros(num_samples).index_add(0, samples, log_ratio)
    return torch.exp(sums).clamp(max=settings.limit)[samples]


def icepop(log_ratio: Tensor, samples: Tensor, num_samples: int, settings: IcePop) -> Tensor:
    """pi_old / pi_rollout within [low, high], else 0 (https://arxiv.org/abs/2510.18855)."""
    ratio = torch.exp(log_ratio)
    return torch.where((ratio >= settings.low) & (ratio <= settings.high), ratio, 0.0)


def geometric_rejection(log_ratio: Tensor, samples: Tensor, num_samples: int, settings: GeometricRejection) -> Tensor:
    """1 where (prod_t pi_old / pi_rollout)^(1/T) of the completion lies in [low, high], else 0."""
    sums = log_ratio.new_zeros(num_samples).index_add(0, samples, log_ratio)
    counts = log_ratio.new_zeros(num_samples).index_add(0, samples, torch.ones_like(log_ratio))
    mean = torch.exp(sums / counts.clamp(min=1))
    return ((mean >= settings.low) & (mean <= settings.high)).to(log_ratio.dtype)[samples]


def no_correction(log_ratio: Tensor, samples: Tensor, num_samples: int, settings: NoCorrection) -> Tensor:
    """1 for every token."""
    return torch.ones_like(log_ratio)


CORRECTIONS: dict[str, Callable[[Tensor, Tensor, int, Any], Tensor]] = {
    "token_truncation": token_truncation,
    "sequence_truncation": sequence_truncation,
    "icepop": icepop,
    "geometric_rejection": geometric_rejection,
    "rollout_as_old": no_correction,
    "none": no_correction,
}
