"""What a request asks of vLLM's sampler: every parameter stated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def sampling_params(stop_token_ids: Sequence[int], **given: Any) -> Any:
    """vLLM's `SamplingParams`, `given` besides what is neutral: a model's generation_config.json must not change what
    is sampled or how it scores."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    neutral = {
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "min_tokens": 0,
        "stop_token_ids": list(stop_token_ids),
    }
    output = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False, "flat_logprobs": True}
    return SamplingParams(**{**neutral, **output, **given})
