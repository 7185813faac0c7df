"""How fast: `rayzero bench all` by parts, and vLLM's own bench on the same lengths."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.gpu.hour.context import CLI, Context, StepFailed
from tests.gpu.hour.models import LARGE, SMALL, TINY, random_model

GROUP_SIZE = 8
PROMPT_TOKENS = 5
"""What `rayzero bench all` samples: groups of 8 after prompts like `12+1=`."""


def learner(context: Context) -> None:
    """Trained tokens a second, and what the head's fp32 logits cost, at Qwen3-0.6B's shape."""
    _learner(context, SMALL)


def learner_4b(context: Context) -> None:
    """The same at Qwen3-4B's."""
    _learner(context, LARGE)


def rollout(context: Context) -> None:
    """One engine kept full by rayzero, then the same model, number of sequences and lengths by `vllm bench`."""
    shape = SMALL if context.device == "cuda" else "small"
    found = _measure(context, shape, ["rollout"])["rollout"]
    context.note(tokens_per_s=found["tokens_per_s"], of_bound=found["share_of_bound"])
    theirs = _vllm(context, found["num_sequences"], found["max_tokens"])
    context.note(vllm_tokens_per_s=theirs, of_vllm=found["tokens_per_s"] / theirs)


def bench(context: Context) -> None:
    """What `rayzero bench all` measures and no other step does; on a CPU the simulated pipeline alone."""
    if context.device == "cpu":
        pipeline = _measure(context, "small", ["pipeline"])["pipeline"]
        context.note(pipeline=pipeline["strict"]["shared_efficiency"])
        return
    found = _measure(context, SMALL, ["ways", "attention", "sync"])
    for key, name in (("ipc_s", "ipc"), ("host_s", "host")):
        if (way := found["ways"].get(name)) is not None:
            context.note(**{key: way["prepare_s"] + way["transfer_s"]})
    context.note(attention_tokens_per_s=found["attention"]["tokens_per_s"])
    context.note(sync_s=found["sync"]["idle"]["total_s"], pause_s=found["sync"]["idle"]["pause_s"])


def _learner(context: Context, shape: str) -> None:
    found = _measure(context, shape, ["roofline", "head", "learner"])
    context.note(
        gemm_tflops=found["roofline"]["gemm_bf16_flops"] / 1e12,
        head_overhead=found["head"]["overhead_of_products"],
        learner_tokens_per_s=found["learner"]["learner"]["trained_tokens_per_s"],
        packed_tokens_per_s=found["learner"]["packed"]["trained_tokens_per_s"],
        mfu=found["learner"]["learner"]["share_of_gemm_peak"],
    )


def _measure(context: Context, shape: str, parts: Sequence[str]) -> dict[str, Any]:
    """The figures of `rayzero bench all`; its table stays beside the step's result.

    Raises:
        StepFailed: a part could not be measured; with the bench's own reason. What others gave is in its table.
    """
    asked = [word for part in parts for word in ("--part", part)]
    command = [CLI, "bench", "all", "--device", context.device, "--shape", shape, *asked]
    context.run([*command, "--out", str(context.folder)])
    report = json.loads((context.folder / f"bench_{context.device}.json").read_text(encoding="utf-8"))
    missing = {name: why for name, why in report["not_measured"].items() if name in parts}
    if missing:
        raise StepFailed("; ".join(f"{name}: {why}" for name, why in missing.items()))
    return dict(report["figures"])


def _vllm(context: Context, num_sequences: int, max_tokens: int) -> float:
    """Output tokens a second of vLLM's own bench, its engine as rayzero's: CUDA graphs, bf16, groups of one prompt."""
    on_gpu = context.device == "cuda"
    model = str(random_model(context, SMALL if on_gpu else TINY))
    dtype, memory = ("bfloat16", 24 * 2**30) if on_gpu else ("float32", 2**28)
    given = {
        "model": model, "tokenizer": model, "dtype": dtype, "seed": 0, "generation-config": "vllm",
        "dataset-name": "random", "random-input-len": PROMPT_TOKENS, "random-output-len": max_tokens,
        "random-range-ratio": 0, "num-prompts": num_sequences // GROUP_SIZE, "n": GROUP_SIZE, "num-warmups": 2,
        "max-model-len": max_tokens + 64, "max-num-seqs": num_sequences, "kv-cache-memory-bytes": memory,
        "gpu-memory-utilization": 0.05,
    }  # fmt: skip
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    eager = [] if on_gpu else ["--enforce-eager"]
    said = context.run(["tests.gpu.hour.vllm_bench", *options, *eager, "--disable-detokenize"])
    rate = re.search(r"([\d.,]+) output tokens/s", said)
    if rate is None:
        raise StepFailed("vllm bench throughput did not print its output tokens/s: see the log")
    return float(rate[1].replace(",", ""))
