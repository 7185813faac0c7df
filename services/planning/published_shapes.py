"""Shapes of published models by hub id, from their config.json: a plan can be made before anything is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayzero.services.planning.model_shape import ModelShape


def _qwen2(**sizes: Any) -> ModelShape:
    tied = sizes["hidden_size"] < 3000
    return ModelShape(**sizes, tied_embeddings=tied, attention_bias=True, qk_norm=False)


def _qwen3(**sizes: Any) -> ModelShape:
    return ModelShape(**sizes, tied_embeddings=sizes["hidden_size"] < 3000, attention_bias=False, qk_norm=True)


_QWEN25_HALF_B = _qwen2(
    hidden_size=896, num_layers=24, num_heads=14, num_kv_heads=2, head_dim=64, intermediate_size=4864,
    vocab_size=151936, max_positions=32768,
)  # fmt: skip
PUBLISHED: Mapping[str, ModelShape] = {
    "Qwen/Qwen2.5-0.5B": _QWEN25_HALF_B,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_HALF_B,
    "Qwen/Qwen2.5-1.5B": _qwen2(
        hidden_size=1536, num_layers=28, num_heads=12, num_kv_heads=2, head_dim=128, intermediate_size=8960,
        vocab_size=151936, max_positions=131072,
    ),
    "Qwen/Qwen2.5-7B": _qwen2(
        hidden_size=3584, num_layers=28, num_heads=28, num_kv_heads=4, head_dim=128, intermediate_size=18944,
        vocab_size=152064, max_positions=131072,
    ),
    "Qwen/Qwen3-0.6B": _qwen3(
        hidden_size=1024, num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128, intermediate_size=3072,
        vocab_size=151936, max_positions=40960,
    ),
    "Qwen/Qwen3-4B": _qwen3(
        hidden_size=2560, num_layers=36, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=9728,
        vocab_size=151936, max_positions=40960,
    ),
    "meta-llama/Llama-3.1-8B": ModelShape(
        hidden_size=4096, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14336,
        vocab_size=128256, max_positions=131072, tied_embeddings=False, attention_bias=False, qk_norm=False,
    ),
    "Qwen/Qwen3-8B": _qwen3(
        hidden_size=4096, num_layers=36, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=12288,
        vocab_size=151936, max_positions=40960,
    ),
    "Qwen/Qwen3-30B-A3B": ModelShape(
        hidden_size=2048, num_layers=48, num_heads=32, num_kv_heads=4, head_dim=128, intermediate_size=768,
        num_experts=128, experts_per_token=8, vocab_size=151936, max_positions=40960, tied_embeddings=False,
        attention_bias=False, qk_norm=True,
    ),
    "mistralai/Mixtral-8x7B-v0.1": ModelShape(
        hidden_size=4096, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14336,
        num_experts=8, experts_per_token=2, vocab_size=32000, max_positions=32768, tied_embeddings=False,
        attention_bias=False, qk_norm=False,
    ),
    "meta-llama/Llama-3.1-70B": ModelShape(
        hidden_size=8192, num_layers=80, num_heads=64, num_kv_heads=8, head_dim=128, intermediate_size=28672,
        vocab_size=128256, max_positions=131072, tied_embeddings=False, attention_bias=False, qk_norm=False,
    ),
}  # fmt: skip
