"""What the learner is made of, each beside its limit: the head's fp32 logits, packed attention, ways for weights."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
import torch

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import make_batch
from rayzero.learner.model import attention
from rayzero.learner.model.logprobs import token_logprobs
from rayzero.services.bench.length_mix import MIXES, make_groups
from rayzero.services.bench.limits import MachineLimits, best_seconds
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.schema.broadcast.transport import Transport

RECEIVER_S = 180.0
"""A child process to import torch and join."""
SYNCS = 5


def head(shape: ModelShape, device: str, limits: MachineLimits, num_tokens: int) -> dict[str, float]:
    """Log-probabilities of `num_tokens` tokens, forward and backward, with fp32 logits; and the three products that
    this needs in bf16 alone, nothing else done, in chunks of 1 GiB: the overhead is what lies between. On a GPU also
    what the head takes besides weights, hidden states and their gradients, in bytes."""
    torch.manual_seed(0)
    hidden = torch.randn(num_tokens, shape.hidden_size, device=device).bfloat16().requires_grad_()
    weight = (torch.randn(shape.vocab_size, shape.hidden_size, device=device) * 0.02).bfloat16().requires_grad_()
    targets = torch.randint(0, shape.vocab_size, (num_tokens,), device=device)
    rows = max(1, 2**30 // (4 * shape.vocab_size))

    def fused() -> None:
        hidden.grad = weight.grad = None
        torch.autograd.backward(token_logprobs(hidden, weight, targets)[0].sum())

    def products() -> None:
        with torch.no_grad():
            for start in range(0, num_tokens, rows):
                part = hidden[start : start + rows]
                logits = part @ weight.t()
                logits @ weight
                logits.t() @ part

    seconds, bare = best_seconds(fused, device, 3), best_seconds(products, device, 3)
    flops = 6.0 * num_tokens * shape.vocab_size * shape.hidden_size
    memory = {}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()  # the last gradients are still there
        fused()
        memory["extra_bytes"] = float(torch.cuda.max_memory_allocated() - before)
    return memory | {
        "tokens_per_s": num_tokens / seconds,
        "share_of_gemm_peak": flops / seconds / limits.gemm_bf16_flops,
        "overhead_of_products": seconds / bare - 1,
    }


def packed_attention(shape: ModelShape, device: str, limits: MachineLimits, mix: str) -> dict[str, float]:
    """One layer's attention over one packed micro-batch, forward and backward."""
    samples = make_batch(make_groups(MIXES[mix], 1000)).samples
    (batch,) = pack(samples, tokens_per_microbatch=10**9, share_prompts=True)
    layout = attention.build_layout(batch.trees, torch.device(device))
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, len(batch.token_ids), shape.head_dim, device=device).bfloat16().requires_grad_()
        for heads in (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)
    )

    def work() -> None:
        q.grad = k.grad = v.grad = None
        out, _ = attention.tree_attention(torch.nn.Module(), q, k, v, None, scaling=shape.head_dim**-0.5, layout=layout)
        torch.autograd.backward(out, torch.ones_like(out))

    seconds = best_seconds(work, device, 3)
    segments = [segment for tree in batch.trees for segment in attention._segments(tree)]
    pairs = sum(each.length * each.num_seen + each.length**2 / 2 for each in segments)
    flops = 12.0 * shape.num_heads * shape.head_dim * pairs  # QK and PV, once forward and twice backward
    return {
        "tokens_per_s": len(batch.token_ids) / seconds,
        "share_of_gemm_peak": flops / seconds / limits.gemm_bf16_flops,
    }


def way(num_bytes: int, sender: str, receiver: str, transport: Transport, share_memory: bool) -> dict[str, Any]:
    """New weights from this process to another, without an engine: prepare, hand over, hold against the manifest."""
    from rayzero.learner.broadcast.sender import WeightSender

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_receive, args=(there, receiver), daemon=True)
    child.start()
    size = num_bytes // 2 // 32
    weights = [(f"part.{index}", torch.randn(size, device=sender).bfloat16()) for index in range(32)]
    wire = WeightSender(
        torch.bfloat16,
        deadline_s=RECEIVER_S,
        device=sender,
        transport=transport,
        share_memory=share_memory,
    )
    try:
        here.send(wire.open(1))
        wire.accept()
        kind = _answer(here)
        timings = [_one_way(wire, here, weights, version) for version in range(1, SYNCS + 2)][1:]
        here.send(None)
        child.join(RECEIVER_S)
    finally:
        wire.close()
        child.kill()
    seconds = median(prepared + sent for prepared, sent in timings)
    return {
        "link": kind,
        "num_bytes": num_bytes,
        "prepare_s": median(prepared for prepared, _ in timings),
        "transfer_s": median(sent for _, sent in timings),
        "bytes_per_s": num_bytes / seconds,
    }


def _one_way(wire: Any, here: Connection, weights: Any, version: int) -> tuple[float, float]:
    begun = time.perf_counter()
    manifest = wire.prepare(weights, version)
    prepared = time.perf_counter()
    here.send(manifest)
    wire.broadcast()
    _answer(here)
    return prepared - begun, time.perf_counter() - prepared


def _answer(here: Connection) -> Any:
    if not here.poll(RECEIVER_S):
        raise TimeoutError(f"the receiving process did not answer in {RECEIVER_S:g} s")
    answer = here.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _receive(pipe: Connection, device: str) -> None:
    from rayzero.rollout_workers.broadcast.buffer import StagingBuffer
    from rayzero.rollout_workers.broadcast.group import ReceiverGroup

    torch.set_num_threads(1)
    try:
        where = torch.zeros(0, device=device).device
        group, staging = ReceiverGroup(pipe.recv(), 1, RECEIVER_S, where), StagingBuffer()
        pipe.send(str(group.kind))
        while (manifest := pipe.recv()) is not None:
            group.announce(manifest.policy_version)
            with ThreadPoolExecutor(1) as checker:
                for index in group.take(manifest, staging, RECEIVER_S, keep=False):
                    checker.submit(staging.verify_bucket, index).result()
            pipe.send("done")
        group.close()
    except Exception as error:
        pipe.send(error)


def rollout_limit(shape: ModelShape, limits: MachineLimits, batch: int, context: int) -> float:
    """Tokens a second that no engine passes: a step reads weights and keys once, and computes 2 N a sequence."""
    read = shape.weight_bytes("bfloat16") + batch * context * shape.kv_bytes_per_token("bfloat16")
    # A copy both reads and writes: what is only read comes as fast as the two together.
    step_s = max(read / limits.copy_bytes_per_s, 2 * shape.num_matmul_parameters * batch / limits.gemm_bf16_flops)
    return float(np.float64(batch) / step_s)
