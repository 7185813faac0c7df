"""`rayzero bench learner`: trained tokens a second, every figure beside its limit, and TRL's on the same tokens.

Needs neither Ray nor vLLM. A trained token is a real one: prompt and completion of every sample, padding never. With
prompt sharing and skipped groups fewer are computed than are trained on; the share of the peak counts only the
operations that are really done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rayzero.learner.model.policy import Policy
from rayzero.learner.update.learner import Learner
from rayzero.services.bench.episodes import EpisodeMix, measure_episodes, rows_of
from rayzero.services.bench.length_mix import MIXES, LengthMix, make_groups, num_real_tokens
from rayzero.services.bench.limits import MachineLimits, measure_limits
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.planning.models import resolve_model
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Group

OPTIMIZER_BYTES_PER_PARAMETER = 34
"""fp32 gradient read for the norm (4) and the step (4); weight, two moments read and written (24); bf16 copy (2)."""

OtherStep = Callable[[Path, list[Group], str, int], dict[str, Any]]
"""Another trainer's update: (model, groups, dtype, repeats) -> at least `seconds`, `padded_tokens` and `settings`."""


def run(
    model: str,
    *,
    mix: str | None = None,
    dtype: str = "bfloat16",
    num_threads: int = 0,
    repeats: int = 3,
    measure_trl: OtherStep | None = None,
    as_json: bool = False,
) -> dict[str, Any]:
    """Measure, print and return the figures; with a column for TRL's step where it can be measured.

    Raises:
        RecipeError: the model cannot be trained.
    """
    from rayzero.services.bench.table import show

    device = "cuda" if torch.cuda.is_available() else "cpu"
    figures = measure(
        model,
        mix=mix or ("long" if device == "cuda" else "ragged"),
        dtype=dtype,
        device=device,
        num_threads=num_threads,
        repeats=repeats,
        measure_trl=measure_trl,
    )
    show("one update of the learner", _rows(figures, MachineLimits(**figures["limits"])), figures, as_json)
    return figures


def run_episodes(
    model: str,
    *,
    dtype: str = "bfloat16",
    num_threads: int = 0,
    repeats: int = 3,
    mix: EpisodeMix | None = None,
    as_json: bool = False,
) -> dict[str, Any]:
    """The same for episodes that fork: trees beside rows.

    Raises:
        RecipeError: the model cannot be trained.
    """
    from rayzero.services.bench.table import show

    if num_threads:
        torch.set_num_threads(num_threads)
    device, mix = "cuda" if torch.cuda.is_available() else "cpu", mix or EpisodeMix()
    learner = _learner(resolve_model(model), dtype, device, mix.num_turns * mix.sampled_tokens, share=True)
    figures: dict[str, Any] = {
        "model": model, "dtype": dtype, "device": device, "computes_on": _where(device),
        "num_threads": torch.get_num_threads(), "mix": str(mix), **measure_episodes(learner, mix, repeats),
    }  # fmt: skip
    show("one update on episodes that fork", rows_of(figures), figures, as_json)
    return figures


def measure(
    model: str,
    *,
    mix: str,
    dtype: str,
    device: str,
    num_threads: int = 0,
    repeats: int = 3,
    measure_trl: OtherStep | None = None,
) -> dict[str, Any]:
    """The figures alone. Needs torch, transformers, numpy and pydantic, and nothing else."""
    if num_threads:
        torch.set_num_threads(num_threads)
    path, lengths = resolve_model(model), MIXES[mix]
    limits = measure_limits(device)

    def learner(share: bool) -> Learner:
        return _learner(path, dtype, device, lengths.max_tokens, share)

    variants = {
        "packed": _measure(lambda: learner(False), lengths, 0.0, repeats, limits),
        "learner": _measure(lambda: learner(True), lengths, 0.0, repeats, limits),
        "half_neutral": _measure(lambda: learner(True), lengths, 0.5, repeats, limits),
    }
    figures: dict[str, Any] = {
        "model": model, "dtype": dtype, "device": device, "computes_on": _where(device),
        "num_threads": torch.get_num_threads(), "mix": str(lengths), "limits": asdict(limits), **variants,
    }  # fmt: skip
    if measure_trl is not None:
        vocab_size = Policy(path, dtype=dtype).model.config.vocab_size
        groups = make_groups(lengths, vocab_size)
        figures["trl"] = measure_trl(path, groups, dtype, repeats)
        figures["trl"]["trained_tokens_per_s"] = num_real_tokens(groups) / figures["trl"]["seconds"]
        figures["ratio"] = figures["learner"]["trained_tokens_per_s"] / figures["trl"]["trained_tokens_per_s"]
    return figures


def _learner(path: Any, dtype: str, device: str, max_tokens: int, share: bool) -> Learner:
    tokens = _gpu_microbatch(read_shape(path)) if device == "cuda" else 4096
    settings = LearnerSettings.model_validate({
        "compute": {"share_prompts": share, "tokens_per_microbatch": tokens},
        # Random tokens: no engine sampled them, so nothing is to be said of its agreement.
        "watch": {"kl_warn": 1e9, "kl_stop": 1e9, "ess_warn": 0, "ess_stop": 0},
    })  # fmt: skip
    policy = Policy(path, dtype=dtype, device=device, compute=settings.compute)
    return Learner(policy, settings, num_updates=1000, max_completion_tokens=max_tokens)


def _where(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"


def _gpu_microbatch(shape: ModelShape) -> int:
    """The largest that leaves the GPU a sixth of its memory beside weights, masters, gradients and moments."""
    free = torch.cuda.get_device_properties(0).total_memory * 5 // 6 - 18 * shape.num_parameters
    sizes = (2**power for power in range(16, 10, -1))
    return next((size for size in sizes if shape.activation_bytes(size, False) <= free), 1024)


def _measure(
    make: Callable[[], Learner], mix: LengthMix, neutral_share: float, repeats: int, limits: MachineLimits
) -> dict[str, float]:
    """Median update after one that warms up."""
    learner = make()
    groups = make_groups(mix, learner.policy.model.config.vocab_size, neutral_share=neutral_share)
    seconds, results = [], []
    for version in range(1, repeats + 2):
        started = time.perf_counter()
        results.append(learner.update(groups, version).metrics)
        seconds.append(time.perf_counter() - started)
    typical = median(seconds[1:])
    flops = _flops(learner.policy, results[-1]["fed_tokens"], groups, neutral_share)
    phases = {name: median(result[name] for result in results[1:]) for name in results[-1] if name.endswith("_s")}
    num_bytes = OPTIMIZER_BYTES_PER_PARAMETER * learner.policy.num_parameters
    dtype = str(learner.policy.dtype).removeprefix("torch.")
    return {
        "seconds": typical,
        "trained_tokens": num_real_tokens(groups),
        "fed_tokens": results[-1]["fed_tokens"],
        "trained_tokens_per_s": num_real_tokens(groups) / typical,
        "fed_tokens_per_s": results[-1]["fed_tokens"] / typical,
        "share_of_gemm_peak": flops / typical / limits.gemm_flops(dtype),
        "optimizer_share_of_bandwidth": num_bytes / phases["optimizer_s"] / limits.copy_bytes_per_s,
        **phases,
    }


def _flops(policy: Policy, fed_tokens: float, groups: list[Group], neutral_share: float) -> float:
    """Forward and backward of what is fed: 6 a parameter and token, the head only where a token is predicted.

    Attention's own products are left out: under 3 % at these lengths.
    """
    config = policy.model.config
    head = config.vocab_size * config.hidden_size
    embeddings = head if config.tie_word_embeddings else 2 * head
    trained = groups[round(neutral_share * len(groups)) :]
    predicted = sum(rollout.completion.num_tokens for group in trained for rollout in group.rollouts)
    return float(6.0 * ((policy.num_parameters - embeddings) * fed_tokens + head * predicted))


def _rows(figures: dict[str, Any], limits: MachineLimits) -> list[tuple[str, str]]:
    def variant(name: str) -> str:
        one = figures[name]
        return f"{one['trained_tokens_per_s']:,.0f} tok/s, {one['share_of_gemm_peak']:.0%} of the GEMM peak"

    best = figures["learner"]
    rows = [
        (
            "GEMM peak, bf16 / fp32",
            f"{limits.gemm_bf16_flops / 1e9:,.0f} / {limits.gemm_fp32_flops / 1e9:,.0f} GFLOP/s",
        ),
        ("memory, copy", f"{limits.copy_bytes_per_s / 1e9:.1f} GB/s"),
        ("model", f"{figures['model']}, {figures['dtype']}, {figures['computes_on']}"),
        ("mix", figures["mix"]),
        ("packed, no padding", variant("packed")),
        ("and prompts shared (the default)", variant("learner")),
        ("and half of the groups neutral", variant("half_neutral")),
        ("fed / trained tokens", f"{best['fed_tokens']:,.0f} / {best['trained_tokens']:,.0f}"),
        (
            "forward / backward / optimizer",
            f"{best['forward_s']:.2f} / {best['backward_s']:.2f} / {best['optimizer_s']:.2f} s",
        ),
        ("optimizer, share of memory speed", f"{best['optimizer_share_of_bandwidth']:.0%}"),
    ]
    if "trl" in figures:
        trl = figures["trl"]
        rows += [
            ("TRL", f"{trl['trained_tokens_per_s']:,.0f} tok/s ({trl['padded_tokens']:,} padded tokens)"),
            ("TRL's settings", trl["settings"]),
            ("rayzero ÷ TRL", f"{figures['ratio']:.1f}×"),
        ]
    return rows
