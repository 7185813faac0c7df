"""Where the time of a step goes that missed its target: a short profile in profile.txt. Never a measurement."""

from __future__ import annotations

import asyncio
import cProfile
import io
import os
import pstats
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayzero.learner.model.logprobs import token_logprobs
from rayzero.learner.model.policy import Policy
from rayzero.learner.update.learner import Learner
from rayzero.rollout_workers import engine_process
from rayzero.rollout_workers.environment import engine_environment
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.messages import Group
from tests.gpu.hour.context import PROFILE, Context
from tests.gpu.hour.models import SMALL, TINY, random_model, shape_of
from tests.gpu.hour.profiled_engine import DUMP
from tests.gpu.pair import Pair
from tests.unit.learner.kit import make_group

TOP = 30
"""Kernels, or Python functions."""
HEAD_TOKENS = 8192
GROUP_SIZE, LONGEST = 8, 1600


def learner(context: Context) -> None:
    """One update of the step's model after one that warms up, and the head alone, by kernels."""
    trained, groups = _learner(context), _groups(context)
    trained.update(groups, 1)
    update = kernels(lambda: trained.update(groups, 2), context.device)
    head = kernels(_head(context), context.device)
    save(context, [("one update", update), ("the head, forward and backward", head)])


def sync(context: Context) -> None:
    """Three syncs to an engine that is idle: the learner's side here, and what the engine does in its pause."""
    on_gpu = context.device == "cuda"
    settings = RolloutSettings.model_validate({
        "device": context.device, "enforce_eager": not on_gpu, "max_model_tokens": 224,
        "sampling": {"max_tokens": 128}, "kv_cache_bytes": 2**32 if on_gpu else 2**28,
    })  # fmt: skip
    os.environ.update(engine_environment(settings))
    os.environ[DUMP] = str(context.scratch / "engine.prof")
    arguments = engine_process.engine_arguments
    profiled = {"worker_extension_cls": "tests.gpu.hour.profiled_engine.ProfiledReceiver"}
    engine_process.engine_arguments = lambda spec: arguments(spec) | profiled
    path = random_model(context, SMALL if on_gpu else TINY)
    pair = Pair(path, settings, dtype="bfloat16" if on_gpu else "float32")
    sender = asyncio.run(_syncs(pair))
    save(context, [("the learner's side", functions(sender)), ("the engine, paused", functions(os.environ[DUMP]))])


async def _syncs(pair: Pair) -> cProfile.Profile:
    profile = cProfile.Profile()
    try:
        await pair.start()
        await pair.sync()  # makes the buffers
        for _ in range(3):
            pair.version += 1
            profile.enable()
            manifest = pair.prepare(pair.version)
            profile.disable()
            await asyncio.gather(pair.engine.receive_weights(manifest), asyncio.to_thread(pair.sender.broadcast))
            await pair.engine.apply_weights(pair.version)
    finally:
        await pair.end()
    return profile


def _learner(context: Context) -> Learner:
    on_gpu = context.device == "cuda"
    settings = LearnerSettings.model_validate({
        "compute": {"tokens_per_microbatch": 32768 if on_gpu else 4096},
        # Random tokens: no engine sampled them, so nothing is to be said of its agreement.
        "watch": {"kl_warn": 1e9, "kl_stop": 1e9, "ess_warn": 0, "ess_stop": 0},
    })  # fmt: skip
    path, dtype = random_model(context, SMALL if on_gpu else TINY), "bfloat16" if on_gpu else "float32"
    policy = Policy(path, dtype=dtype, device=context.device, compute=settings.compute)
    return Learner(policy, settings, num_updates=10, max_completion_tokens=LONGEST)


def _groups(context: Context) -> list[Group]:
    """Completions of any length up to the longest: the bench's `long` mix is not much else to a kernel."""
    rng = np.random.default_rng(0)
    num_groups, longest, prompt = (16, LONGEST, 200) if context.device == "cuda" else (2, 20, 8)
    lengths = rng.integers(2, longest, (num_groups, GROUP_SIZE)).tolist()
    rewards = [float(row % 2) for row in range(GROUP_SIZE)]
    return [make_group(rng, row, rewards, prompt_length=prompt, group_id=number) for number, row in enumerate(lengths)]


def _head(context: Context) -> Callable[[], object]:
    """The head's two passes, after one that compiles its kernels."""
    shape = shape_of(SMALL if context.device == "cuda" else TINY)
    tokens = HEAD_TOKENS if context.device == "cuda" else 64
    hidden = torch.randn(tokens, shape.hidden_size, device=context.device).bfloat16().requires_grad_()
    weight = torch.randn(shape.vocab_size, shape.hidden_size, device=context.device).bfloat16().requires_grad_()
    targets = torch.randint(0, shape.vocab_size, (tokens,), device=context.device)

    def work() -> None:
        torch.autograd.backward(token_logprobs(hidden, weight, targets)[0].sum())

    work()
    return work


def kernels(work: Callable[[], object], device: str) -> str:
    """torch's table of what took longest; on a GPU kernels."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profile:
        work()
        if device == "cuda":
            torch.cuda.synchronize()
    order = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    return str(profile.key_averages().table(sort_by=order, row_limit=TOP, max_name_column_width=80))


def functions(profile: cProfile.Profile | str) -> str:
    """cProfile's table by time in and below each function."""
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("cumulative").print_stats(TOP)
    return text.getvalue()


def save(context: Context, parts: Iterable[tuple[str, Any]]) -> None:
    """profile.txt, its parts one after another."""
    text = "\n\n".join(f"== {title}\n\n{table}" for title, table in parts)
    Path(context.folder / PROFILE).write_text(text, encoding="utf-8")
