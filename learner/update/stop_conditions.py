"""The watched figures: what is measured between sampler and learner, and which of it stops the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayzero.services.schema.config.learner import WatchSettings
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.recent_kl import REMEDY, RecentKl


def mismatch_metrics(
    old: Tensor, rollout: Tensor, fresh: Tensor, tokens_each: Tensor | None = None
) -> dict[str, float]:
    """Sampler against learner, from log-probabilities at hand.

    old and rollout [n] log-probabilities of the learner at the start of the batch and of the engine; fresh [n] bool:
    the token was sampled from exactly the learner's weights; tokens_each [n]: how many tokens of the batch each stands
    for, 1 where it is not given. A token whose difference is not finite is counted and left out of the rest. `*_fresh`
    figures are absent when no token is fresh.
    """
    difference = (old - rollout).double()
    counts = torch.ones_like(difference) if tokens_each is None else tokens_each.double()
    finite = difference.isfinite()
    metrics = {"nonfinite_logprobs": float((~finite).sum()), "fresh_tokens": float((finite & fresh).sum())}
    for ending, kept in (("", finite), ("_fresh", finite & fresh)):
        metrics |= {f"{name}{ending}": value for name, value in _figures(difference[kept], counts[kept]).items()}
    return metrics


def check(metrics: Mapping[str, float], limits: WatchSettings, dtype: str, recent: RecentKl | None = None) -> list[str]:
    """Warnings for figures past their warning limit. Raises RunHalted, with the figures, past a stop limit.

    `recent` adds the steps before to the KL at equal weights, where this one has too few tokens for a stop.
    """
    kl_warn, kl_stop = limits.kl_limits(dtype)
    kl, ess = metrics.get("kl_rollout_fresh", 0.0), metrics.get("ess", 1.0)
    num_tokens = metrics.get("fresh_tokens", math.inf)
    if recent is not None and "kl_rollout_fresh" in metrics:
        kl, num_tokens = recent.add(kl, int(num_tokens), limits.min_tokens)
    reasons = [
        f"{name} is {metrics[name]}: lower learner.optimizer.learning_rate or learner.optimizer.max_grad_norm"
        for name in ("loss", "grad_norm")
        if not math.isfinite(metrics.get(name, 0.0))
    ]
    # One unlucky token moves the mean of a hundred: few tokens may warn, but not stop a run.
    enough = num_tokens >= limits.min_tokens
    if not kl <= kl_stop and (enough or math.isnan(kl)):
        reasons.append(_kl_words(kl, kl_stop))
    if not ess >= limits.ess_stop:
        reasons.append(_ess_words(ess, limits.ess_stop))
    if limits.grad_norm_stop is not None and metrics.get("grad_norm", 0.0) > limits.grad_norm_stop:
        reasons.append(
            f"the gradient's norm is {metrics['grad_norm']:.3g}, over {limits.grad_norm_stop:g} "
            "(learner.watch.grad_norm_stop): lower learner.optimizer.learning_rate"
        )
    if reasons:
        figures = ", ".join(f"{name}={value:.6g}" for name, value in sorted(metrics.items()))
        raise RunHalted(f"the step was not applied: {'; '.join(reasons)}; its figures: {figures}")
    warnings = []
    # A step's own figure warns by itself, whatever those before it were.
    kl = max(kl, metrics.get("kl_rollout_fresh", 0.0))
    if kl > kl_warn:
        warnings.append(_kl_words(kl, kl_warn))
    if ess < limits.ess_warn:
        warnings.append(_ess_words(ess, limits.ess_warn))
    return warnings


def _kl_words(kl: float, limit: float) -> str:
    """Sampled and trained with the same weights, so the two should agree but for rounding."""
    return (
        f"the engine and the learner give the same tokens different probabilities: kl_rollout_fresh is {kl:.3g} nats a "
        f"token, over {limit:g}; {REMEDY}"
    )


def _ess_words(ess: float, limit: float) -> str:
    return (
        f"few tokens carry the update: their weights are worth those of {ess:.0%} of the batch (ess), under "
        f"{limit:.0%}; lower training.max_staleness, or take more groups an update"
    )


def _figures(difference: Tensor, counts: Tensor) -> dict[str, float]:
    if not len(difference):
        return {}
    ratio, shares = torch.exp(difference.clamp(-40.0, 40.0)), counts / counts.sum()
    figures: dict[str, Any] = {
        "kl_rollout": torch.dot(shares, ratio - 1 - difference),
        "logprob_gap_mean": torch.dot(shares, difference.abs()),
        "logprob_gap_max": difference.abs().max(),
        "ratio_outside": torch.dot(shares, ((ratio < 0.8) | (ratio > 1.2)).double()),
        "ess": torch.dot(shares, ratio).square() / torch.dot(shares, ratio.square()),
    }
    return {name: float(value) for name, value in figures.items()}
