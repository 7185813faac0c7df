"""Shapes of published models by hub id, from their config.json: a plan can be made before anything is fetched."""

from __future__ import annotations

from collections.abc import Mapping

from services.model_shape import ModelShape


def _qwen2(**sizes: int) -> ModelShape:
    tied = sizes["hidden_size"] < 3000
    return ModelShape(**sizes, tied_embeddings=tied, attention_bias=True, qk_norm=False)


PUBLISHED: Mapping[str, ModelShape] = {
    "Qwen/Qwen2.5-0.5B": _qwen2(
        hidden_size=896, num_layers=24, num_heads=14, num_kv_heads=2, head_dim=64, intermediate_size=4864,
        vocab_size=151936, max_positions=32768,
    ),
    "Qwen/Qwen2.5-1.5B": _qwen2(
        hidden_size=1536, num_layers=28, num_heads=12, num_kv_heads=2, head_dim=128, intermediate_size=8960,
        vocab_size=151936, max_positions=131072,
    ),
    "Qwen/Qwen2.5-7B": _qwen2(
        hidden_size=3584, num_layers=28, num_heads=28, num_kv_heads=4, head_dim=128, intermediate_size=18944,
        vocab_size=152064, max_positions=131072,
    ),
}  # fmt: skip
