"""Tokens a second of one engine that is kept full, beside the bound that weights, keys and products set."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Literal

from benchmarks.parts import rollout_limit
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.bench.limits import MachineLimits
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.messages import ChatMessage, GroupRequest, Prompt, Sampling

GROUP_SIZE = 8


def measure(
    path: Path,
    shape: ModelShape,
    device: Literal["cpu", "cuda"],
    limits: MachineLimits,
    num_groups: int,
    max_tokens: int,
) -> dict[str, Any]:
    """Start an engine, sample all groups at once, twice; the second time counts."""
    batch = num_groups * GROUP_SIZE
    settings = RolloutSettings(
        device=device,
        max_num_seqs=batch,
        max_model_tokens=max_tokens + 64,
        sampling={"max_tokens": max_tokens},
        kv_cache_bytes=max(2**28, batch * (max_tokens + 128) * shape.kv_bytes_per_token("bfloat16")),
        enforce_eager=device == "cpu",
    )
    os.environ.update(engine_environment(settings))
    tokens, seconds, start_s = asyncio.run(_run(path, settings, num_groups, max_tokens))
    limit = rollout_limit(shape, limits, batch, max_tokens // 2)
    return {
        "num_sequences": batch,
        "max_tokens": max_tokens,
        "start_s": start_s,
        "tokens_per_s": tokens / seconds,
        "decode_bound_tokens_per_s": limit,
        "share_of_bound": tokens / seconds / limit,
    }


async def _run(path: Path, settings: RolloutSettings, num_groups: int, max_tokens: int) -> tuple[int, float, float]:
    engine = RolloutEngine("bench", EngineSpec(model_path=str(path), dtype="bfloat16", settings=settings))
    begun = time.perf_counter()
    await engine.start()
    started = time.perf_counter()
    try:
        for wave in range(2):
            waved = time.perf_counter()
            made = await asyncio.gather(
                *(engine.generate(_request(wave * num_groups + index, max_tokens)) for index in range(num_groups))
            )
            seconds = time.perf_counter() - waved
    finally:
        await engine.shutdown()
    return sum(one.num_tokens for group in made for one in group.completions), seconds, started - begun


def _request(number: int, max_tokens: int) -> GroupRequest:
    prompt = Prompt(prompt_id="bench", messages=(ChatMessage(role="user", content=f"{number}+1="),), answer=None)
    sampling = Sampling(num_completions=GROUP_SIZE, max_tokens=max_tokens, seed=number)
    return GroupRequest(group_id=number, prompt=prompt, sampling=sampling)
