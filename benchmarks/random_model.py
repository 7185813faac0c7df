"""A model of a published shape with random weights: its speed is that of the real one, and nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rayzero.services.planning.model_shape import ModelShape


def save_random_model(shape: ModelShape, directory: Path) -> Path:
    """Write it in bf16 with a tokenizer of single characters, in Hugging Face format."""
    from rayzero.learner.builtin_models.tiny_model import character_tokenizer

    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]), _bfloat16():
        torch.manual_seed(0)
        model = _build(shape)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _build(shape: ModelShape) -> Any:
    import transformers

    family = "Qwen3" if shape.qk_norm else "Qwen2" if shape.attention_bias else "Llama"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tied_embeddings,
        # No token ends a completion: all are as long as they are asked to be.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return getattr(transformers, f"{family}ForCausalLM")(config)


class _bfloat16:
    """Parameters are made in bf16: made in fp32 first, a large model would not fit the host."""

    def __enter__(self) -> None:
        torch.set_default_dtype(torch.bfloat16)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(torch.float32)
