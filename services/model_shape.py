"""What a model weighs, from its config.json alone: parameters, bytes, KV cache, FLOPs. No torch, nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.schema.errors import RecipeError

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A dense decoder of the Llama / Qwen family."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    attention_bias: bool
    qk_norm: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From the content of a config.json.

        Raises:
            KeyError: a size that every model of the family has is not there.
        """
        heads = config["num_attention_heads"]
        kind = config.get("model_type", "")
        return cls(
            hidden_size=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            max_positions=config.get("max_position_embeddings", 2048),
            tied_embeddings=config.get("tie_word_embeddings", False),
            attention_bias=config.get("attention_bias", kind == "qwen2"),
            qk_norm=kind.startswith("qwen3"),
        )

    @property
    def num_parameters(self) -> int:
        """All weights, tied ones once."""
        h, d = self.hidden_size, self.head_dim
        attention = h * d * (self.num_heads + 2 * self.num_kv_heads) + self.num_heads * d * h
        if self.attention_bias:
            attention += d * (self.num_heads + 2 * self.num_kv_heads)
        if self.qk_norm:
            attention += 2 * d
        layer = attention + 3 * h * self.intermediate_size + 2 * h
        return self.num_layers * layer + h + self.vocab_size * h * (1 if self.tied_embeddings else 2)

    @property
    def num_matmul_parameters(self) -> int:
        """N of the FLOP formulas: weights that every token is multiplied by, the output head included."""
        return self.num_parameters - (0 if self.tied_embeddings else self.vocab_size * self.hidden_size)

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Keys and values of all layers for one token."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * DTYPE_BYTES[dtype]

    def weight_bytes(self, dtype: str) -> int:
        """One copy of the weights."""
        return self.num_parameters * DTYPE_BYTES[dtype]

    def sync_bytes(self, dtype: str, lora_rank: int | None = None) -> int:
        """What one sync sends to each engine: all weights, or adapters alone."""
        return (self.num_parameters if lora_rank is None else self.num_adapter_parameters(lora_rank)) * DTYPE_BYTES[
            dtype
        ]

    def learner_state_bytes(self, lora_rank: int | None = None) -> int:
        """fp32 masters, their gradients and both Adam moments: 16 bytes a trained parameter."""
        return 16 * (self.num_parameters if lora_rank is None else self.num_adapter_parameters(lora_rank))

    def num_adapter_parameters(self, rank: int) -> int:
        """Of low-rank adapters on all linear layers: rank · (inputs + outputs) each."""
        h, d, m = self.hidden_size, self.head_dim, self.intermediate_size
        queries, keys = self.num_heads * d, self.num_kv_heads * d
        return self.num_layers * rank * (2 * (h + queries) + 2 * (h + keys) + 3 * (h + m))

    def activation_bytes(self, num_tokens: int, checkpointing: bool) -> int:
        """What the backward pass of one micro-batch keeps, in bf16: about 17 h + 4 · intermediate values a token and
        layer without checkpointing, one h with it."""
        per_layer = self.hidden_size if checkpointing else 17 * self.hidden_size + 4 * self.intermediate_size
        return 2 * num_tokens * self.num_layers * per_layer


def read_shape(directory: Path) -> ModelShape:
    """The shape of a model directory.

    Raises:
        RecipeError: no config.json, or one of another kind of model.
    """
    file = directory / "config.json"
    try:
        return ModelShape.from_config(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RecipeError(
            f"model.path: {directory} has no config.json: name a directory in Hugging Face format"
        ) from None
    except (KeyError, ValueError) as error:
        raise RecipeError(f"model.path: {file} does not describe a Llama- or Qwen-like decoder: {error!r}") from None
