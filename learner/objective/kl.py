"""Estimates of KL(policy || reference) from sampled tokens (http://joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """log pi - log pi_ref: unbiased, of either sign. For rewards: as a loss its gradient is 0 on average."""
    return policy - reference


def k2(policy: Tensor, reference: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2: biased, but its gradient is that of the KL."""
    return 0.5 * (policy - reference).square()


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """pi_ref / pi - log(pi_ref / pi) - 1: unbiased and never negative (https://arxiv.org/abs/2402.03300 eq. 4)."""
    # Beyond 20 the ratio is 5e8; without the clamp one broken token makes every gradient inf.
    log_ratio = (reference - policy).clamp(-20.0, 20.0)
    return torch.expm1(log_ratio) - log_ratio


KL_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
