"""`rayzero bench sync`: how long new weights take from learner to engines, and how long an engine stands still.

The learner's half runs in this process, each engine in a process of its own, as in a run; only Ray's calls (about
1 ms each) are left out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from rayzero.learner.broadcast.sender import WeightSender
from rayzero.learner.model.policy import Policy
from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.bench.limits import copy_rate
from rayzero.services.planning.models import resolve_model
from rayzero.services.schema.config.learner import LoraSettings
from rayzero.services.schema.config.rollout import OnWeights, RolloutSettings
from rayzero.services.schema.errors import RayzeroError, UsageError
from rayzero.services.schema.extras import require
from rayzero.services.schema.messages import ChatMessage, GroupRequest, Prompt, Sampling

WARM_UP_SYNCS = 2
"""The first makes the buffers."""
DECODE_STEPS = 8
"""Before a sync, to know how long one takes. Most of the completion must be left for after it."""
POLL_S = 0.001


def run(
    model: str,
    dtype: str,
    num_engines: int,
    num_syncs: int,
    as_json: bool,
    lora_rank: int | None = None,
    on_weights: OnWeights = "keep_recompute",
    changed: float | None = None,
) -> dict[str, Any]:
    """Measure syncs to idle engines, then to engines that generate; prints and returns the figures."""
    from rayzero.services.bench.table import show

    require("vllm")
    if lora_rank is not None and changed is not None:
        raise UsageError("rayzero bench sync: adapters are always sent whole: leave --changed or --lora out")
    figures = measure(resolve_model(model), dtype, "auto", num_engines, num_syncs, lora_rank, on_weights, changed)
    show("weight sync", table_rows(figures), figures, as_json)
    return figures


def measure(
    path: Path,
    dtype: str,
    device: Literal["auto", "cpu", "cuda"],
    num_engines: int,
    num_syncs: int,
    lora_rank: int | None = None,
    on_weights: OnWeights = "keep_recompute",
    changed: float | None = None,
) -> dict[str, Any]:
    """The figures alone, of adapters of `lora_rank` if it is given. `changed`: the share of the values that differ from
    sync to sync, which are sent as deltas over gloo, as if engines were on another machine.

    On GPUs the weights lie on the first, and so do the engines: they go by CUDA IPC.
    """
    settings = RolloutSettings(device=device, kv_cache_bytes=2**28, max_model_tokens=512, on_weights=on_weights)
    # What the engine logs must not end up among the figures.
    os.environ.update({**engine_environment(settings), "VLLM_LOGGING_STREAM": "ext://sys.stderr"})
    figures = asyncio.run(_measure(path, dtype, settings, num_engines, num_syncs, lora_rank, changed))
    rate = copy_rate(settings.engine_device)
    limit_s = None if lora_rank else least_traffic(figures["num_bytes"], dtype) / rate
    return figures | {"copy_bytes_per_s": rate, "limit_s": limit_s}


def least_traffic(num_bytes: int, dtype: str) -> int:
    """Bytes that must pass through memory however a broadcast of `num_bytes` is done on one machine: fp32 weights read,
    what is sent written and read, what the engine computes with written."""
    masters = num_bytes * 4 // int(getattr(torch, dtype).itemsize)
    return masters + 3 * num_bytes


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """For people."""
    rows = [
        (
            "weights" if figures["lora_rank"] is None else f"adapters of rank {figures['lora_rank']}",
            f"{figures['num_bytes'] / 1e6:.0f} MB as {figures['dtype']}, {figures['num_tensors']} tensors",
        ),
        ("of them sent", f"{figures['sent_bytes'] / 1e6:.0f} MB"),
        ("engines", f"{figures['num_engines']}"),
        ("engine start, the first", f"{figures['start_s']:.1f} s"),
    ]
    for state in ("idle", "generating"):
        medians = figures[state]
        rows += [
            (f"{state}: update ready to all acknowledged", f"{medians['total_s'] * 1000:.0f} ms"),
            ("cast, lay out, digest", f"{medians['prepare_s'] * 1000:.0f} ms"),
            ("broadcast, digest, load beside generation", f"{medians['transfer_s'] * 1000:.0f} ms"),
            ("of it, inside the slowest engine", f"{medians['receive_s'] * 1000:.0f} ms"),
            ("engine paused", f"{medians['pause_s'] * 1000:.1f} ms"),
        ]
    if limit_s := figures["limit_s"]:
        share = f"{limit_s * 1000:.0f} ms, {limit_s / figures['idle']['total_s']:.0%} of the total when idle"
        rows.append((f"limit: memory copied at {figures['copy_bytes_per_s'] / 1e9:.1f} GB/s", share))
    steps = f"{medians['first_token_steps']:.1f} decode steps of {medians['step_s'] * 1000:.0f} ms"
    return [*rows, (f"first token after resuming ({figures['on_weights']})", steps)]


async def _measure(
    path: Path,
    dtype: str,
    settings: RolloutSettings,
    num_engines: int,
    num_syncs: int,
    lora_rank: int | None,
    changed: float | None,
) -> dict[str, Any]:
    spec = EngineSpec(model_path=str(path), dtype=dtype, settings=settings)
    engines = [RolloutEngine(f"rollout-{index}", spec, deadline_s=60.0) for index in range(num_engines)]
    deltas = changed is not None
    sender = WeightSender(
        getattr(torch, dtype),
        deadline_s=60.0,
        device=settings.engine_device,
        transport="gloo" if deltas else "auto",
        share_memory=not deltas,
        makes_deltas=deltas,
    )
    try:
        begun = time.monotonic()
        for engine in engines:
            await engine.start()
        start_s = time.monotonic() - begun
        rendezvous = sender.open(num_engines)
        joins = [engine.join_transfer(rendezvous, rank) for rank, engine in enumerate(engines, start=1)]
        await asyncio.gather(*joins, asyncio.to_thread(sender.accept))
        lora = None if lora_rank is None else LoraSettings(rank=lora_rank)
        weights = await asyncio.to_thread(_weights, path, dtype, settings.engine_device, lora)
        bench = _Bench(engines, sender, weights, None if lora is None else lora.scaling, changed or 0.0)
        for _ in range(WARM_UP_SYNCS):
            await bench.sync()
        idle = [await bench.sync() for _ in range(num_syncs)]
        generating = await bench.beside_generation(num_syncs)
    finally:
        sender.close()
        await asyncio.gather(*(engine.shutdown() for engine in engines))
    return {
        "model": str(path),
        "dtype": dtype,
        "lora_rank": lora_rank,
        "num_engines": num_engines,
        "on_weights": settings.on_weights,
        "num_tensors": len(weights),
        "num_bytes": bench.num_bytes,
        "sent_bytes": bench.sent_bytes,
        "start_s": start_s,
        "idle": _medians(idle),
        "generating": _medians(generating),
    }


class _Bench:
    """One sender, its engines, and a version that grows."""

    def __init__(
        self,
        engines: Sequence[RolloutEngine],
        sender: WeightSender,
        weights: list[tuple[str, torch.Tensor]],
        adapter_scaling: float | None,
        changed: float,
    ) -> None:
        self._engines, self._sender, self._weights = engines, sender, weights
        self._scaling = adapter_scaling
        flat = [tensor.view(-1) for _, tensor in weights] if changed else []
        self._changing = [(each, torch.randint(len(each), (int(changed * len(each)),))) for each in flat]
        """Each weight, and places in it; a few of them twice."""
        self._version = 0
        self.num_bytes = self.sent_bytes = 0

    async def sync(self) -> dict[str, float]:
        """One sync, timed."""
        self._change()
        self._version += 1
        begun = time.monotonic()
        manifest = await asyncio.to_thread(self._sender.prepare, self._weights, self._version, self._scaling)
        prepared = time.monotonic()
        receives = [engine.receive_weights(manifest) for engine in self._engines]
        sending = asyncio.create_task(asyncio.to_thread(self._sender.broadcast))
        await asyncio.gather(*receives, sending)
        self.sent_bytes = await sending
        received = time.monotonic()
        receipts = await asyncio.gather(*(engine.apply_weights(self._version) for engine in self._engines))
        self.num_bytes = manifest.num_bytes
        return {
            "total_s": time.monotonic() - begun,
            "prepare_s": prepared - begun,
            "transfer_s": received - prepared,
            "receive_s": max(receipt.receive_s for receipt in receipts),
            "pause_s": max(receipt.pause_s for receipt in receipts),
        }

    def _change(self) -> None:
        """The same values each time, by the spacing of bf16 at least: other ones would take longer than a sync."""
        for weight, places in self._changing:
            weight[places] *= 1 + 2**-6

    async def beside_generation(self, num_syncs: int) -> list[dict[str, float]]:
        """Syncs while every engine has 32 completions running; with the first engine's decode step and first token."""
        syncs: list[dict[str, float]] = []
        while len(syncs) < num_syncs:
            running = [asyncio.create_task(engine.generate(self._request(index)))
                       for engine in self._engines for index in range(4)]  # fmt: skip
            step_times: list[float] = []
            watching = asyncio.create_task(_watch_steps(self._engines[0], step_times))
            while len(step_times) < DECODE_STEPS and not all(task.done() for task in running):
                await asyncio.sleep(POLL_S)
            timed = await self.sync()
            resumed = time.monotonic()
            await asyncio.gather(*running)
            watching.cancel()
            syncs.append(timed | first_token(step_times, resumed, timed["total_s"]))
        return syncs

    def _request(self, index: int) -> GroupRequest:
        question = ChatMessage(role="user", content="Tell a long story about a river.")
        prompt = Prompt(prompt_id="river", messages=(question,), answer=None)
        sampling = Sampling(num_completions=8, max_tokens=64, seed=self._version * 10 + index)
        return GroupRequest(group_id=self._version * 10 + index, prompt=prompt, sampling=sampling)


def first_token(step_times: Sequence[float], resumed: float, sync_s: float) -> dict[str, float]:
    """Seconds of a decode step before a sync that ended, with the engine's resumption, at `resumed`; and how many such
    steps pass from then until the next token, which the new weights have made."""
    before = [at for at in step_times if at < resumed - sync_s]
    step_s = median(later - at for at, later in pairwise(before[1:]))  # the first is of the prompts
    after = next((at for at in step_times if at > resumed), None)
    if after is None:
        raise RayzeroError("every completion had ended before the sync did: there is no first token to time")
    return {"step_s": step_s, "first_token_steps": (after - resumed) / step_s}


async def _watch_steps(engine: RolloutEngine, times: list[float]) -> None:
    """Note when the engine's count of generated tokens grows."""
    known = engine.stats().generated_tokens
    while True:
        await asyncio.sleep(POLL_S)
        if (now := engine.stats().generated_tokens) > known:
            known = now
            times.append(time.monotonic())


def _weights(path: Path, dtype: str, device: str, lora: LoraSettings | None) -> list[tuple[str, torch.Tensor]]:
    if lora is not None:
        return list(Policy(path, dtype=dtype, device=device, lora=lora).sent_weights())
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device)
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


def _medians(syncs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: median(sync[key] for sync in syncs) for key in syncs[0]}
