"""An engine alone: does it start, generate, repeat itself, and say of its tokens what the policy says?"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from rayzero.rollout_workers.environment import engine_environment
from rayzero.services.planning.models import resolve_model
from rayzero.services.schema.config.rollout import RolloutSettings
from tests.gpu.hour.context import Context, StepFailed
from tests.gpu.hour.models import DEMO, TINY, has_demo_model
from tests.gpu.pair import Pair, request, tokens_of

LARGEST_GAP = 0.15
"""Mean |Δ log p| past which an engine computes something else: SmolLM2's in bf16, on CPUs, is 0.04."""


def alone(context: Context) -> None:
    """The demo's model, where it is installed, else the tiny one."""
    on_gpu = context.device == "cuda"
    path = resolve_model(DEMO if on_gpu and has_demo_model() else TINY)
    settings = RolloutSettings.model_validate({
        "device": context.device, "enforce_eager": True, "max_model_tokens": 224, "sampling": {"max_tokens": 128},
        "kv_cache_bytes": 2**32 if on_gpu else 2**28, "num_threads": None if on_gpu else 1,
    })  # fmt: skip
    os.environ.update(engine_environment(settings))
    context.note(model=path.name)
    asyncio.run(_alone(context, path, settings))


async def _alone(context: Context, path: Path, settings: RolloutSettings) -> None:
    pair = Pair(path, settings, dtype="bfloat16" if context.device == "cuda" else "float32")
    groups, length = (16, 128) if context.device == "cuda" else (2, 32)
    try:
        await pair.engine.start()
        context.note(start_s=sum(pair.engine.start_seconds.values()), start=pair.engine.start_seconds)
        for wave in range(2):  # the first one warms up
            begun = time.monotonic()
            asked = [request(wave * groups + number, max_tokens=length) for number in range(groups)]
            made = await asyncio.gather(*(pair.engine.generate(each) for each in asked))
            seconds = time.monotonic() - begun
        tokens = sum(completion.num_tokens for group in made for completion in group.completions)
        context.note(tokens_per_s=tokens / seconds, num_sequences=8 * groups)
        first, again = [tokens_of(await pair.engine.generate(request(7, max_tokens=length))) for _ in range(2)]
        context.note(same_seed=int(first == again), gap=await pair.mismatch())
    finally:
        await pair.end()
    if first != again:
        raise StepFailed("the same seeds gave other tokens")
    if not context.figures["gap"] <= LARGEST_GAP:
        raise StepFailed(f"the engine's log-probabilities are {context.figures['gap']:.2g} nats from the policy's")
