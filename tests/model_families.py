"""Tiny random models of every family that the learner trains, in the variants that published models come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 61
WINDOW = 48
"""Longer than every sequence that is compared: what learner and model agree on."""
_SIZES = {
    "vocab_size": VOCABULARY,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_NO_HEAD_DIM = {"cohere", "granite", "olmo2", "olmo3", "phi3", "qwen2", "smollm3", "starcoder2"}
"""Families whose heads share `hidden_size` out."""
_BIASED = {"attention_bias": True}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
_EXPERTS = {"num_experts_per_tok": 2}
_LONG_ROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64}
_LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}

VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "arcee": [{}, {**_BIASED, "mlp_bias": True, "rope_parameters": _YARN}],
    "cohere": [{"logit_scale": 0.3}, {"use_qk_norm": True}],
    "cohere2": [{"logit_scale": 0.3, **_MIXED}],
    "ernie4_5": [{}, {"tie_word_embeddings": False}],
    "exaone4": [
        {"sliding_window": None, "layer_types": ["full_attention"] * 2}, {**_MIXED, "tie_word_embeddings": True},
    ],
    "gemma": [{}],
    "gemma3_text": [_MIXED, {**_MIXED, **_BIASED}],
    "glm": [{}, {"attention_bias": False}],
    "glm4": [{}, {"attention_bias": False, "tie_word_embeddings": True}],
    "granite": [
        {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
        {**_BIASED, "mlp_bias": True, "tie_word_embeddings": True},
    ],
    "llama": [{"rope_parameters": _LLAMA_3}, {**_BIASED, "mlp_bias": True, "tie_word_embeddings": True}],
    "mistral": [{"sliding_window": WINDOW}, {"sliding_window": None, "tie_word_embeddings": True}],
    "mixtral": [_EXPERTS | {"num_local_experts": 4}, {"num_local_experts": 3, "num_experts_per_tok": 1}],
    "olmo2": [{}, {**_BIASED, "tie_word_embeddings": True}],
    "olmo3": [_MIXED, {**_MIXED, **_BIASED}],
    "phi3": [{"sliding_window": WINDOW}, {"rope_parameters": _LONG_ROPE, "tie_word_embeddings": True}],
    "qwen2": [{"tie_word_embeddings": True, "sliding_window": 4, "use_sliding_window": False}, {}],
    "qwen3": [{"tie_word_embeddings": True}, {"rope_parameters": _YARN}],
    "qwen3_moe": [
        _EXPERTS | {"num_experts": 6, "moe_intermediate_size": 16, "norm_topk_prob": True, "tie_word_embeddings": True},
        {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "rope_parameters": _YARN},
    ],
    "seed_oss": [{}, {"attention_bias": False, "attention_out_bias": True, "mlp_bias": True}],
    "smollm3": [
        {"no_rope_layer_interval": 2},
        {"no_rope_layer_interval": 2, **_BIASED, "mlp_bias": True, "tie_word_embeddings": False},
    ],
    "starcoder2": [{}, {"use_bias": False, "tie_word_embeddings": False, "sliding_window": WINDOW}],
}  # fmt: skip
"""By `model_type`: what differs from the sizes above and the code's defaults."""


def build(kind: str, variant: Mapping[str, Any], directory: Path, *, head_dim: int = 8) -> Path:
    """Save a random model whose every parameter matters: transformers' own start values hide errors, for attention
    hardly differs between tokens and biases are zero."""
    sizes = {**_SIZES, "hidden_size": 4 * head_dim, "head_dim": head_dim}
    if kind in _NO_HEAD_DIM:
        sizes.pop("head_dim")
    if variant.get("rope_parameters", {}).get("rope_type") == "longrope":
        factors = [1.0 + 0.1 * index for index in range(head_dim // 2)]
        longer = {"short_factor": factors, "long_factor": [3.0 * factor for factor in factors]}
        variant = {**variant, "rope_parameters": variant["rope_parameters"] | longer}
    config = AutoConfig.for_model(kind, **{**sizes, **variant})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(6.0) if parameter.ndim >= 2 else parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return directory
