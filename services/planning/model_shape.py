"""What a model weighs, from its config.json alone; a model that cannot be trained is refused here. Loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayzero.services.planning.model_families import FAMILIES, Family, flag, refusal, short_rotary, sliding_window
from rayzero.services.schema.errors import RecipeError

_PLAIN = Family()
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A decoder: one of the families of services/planning/model_families.py, or a Llama or Qwen by its sizes alone."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    """Of one expert in a mixture."""
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    attention_bias: bool
    """Of queries, keys and values."""
    qk_norm: bool
    num_experts: int = 0
    """In each layer of a mixture; 0: the model is dense."""
    experts_per_token: int = 0
    gated_mlp: bool = True
    """Three matrices in the feed-forward part, or two."""
    fused_attention: bool = False
    fused_gate: bool = False
    """Whether queries, keys and values, or gate and up, are one matrix in the checkpoint."""
    vector_values: int | None = None
    """Values of all biases and norms. None: as `attention_bias` and `qk_norm` say of a Llama or Qwen."""
    sliding_window: int | None = None
    """Tokens that some layer attends to at most; None: all layers attend to all."""
    short_rotary: int | None = None
    """Positions beyond which the rotary embedding is another; None: it is one for all."""
    overflows: bool = False
    """Whether activations leave the range of float16."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From the content of a config.json.

        Raises:
            KeyError: a size that every model of the family has is not there.
        """
        heads = config["num_attention_heads"]
        kind = str(config.get("model_type", ""))
        family = FAMILIES.get(kind, Family())
        experts = family.experts
        shape = cls(
            hidden_size=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate_size=config["intermediate_size"] if experts is None else config.get(*experts.size),
            num_experts=0 if experts is None else experts.count(config),
            experts_per_token=0 if experts is None else config.get("num_experts_per_tok", experts.chosen),
            vocab_size=config["vocab_size"],
            max_positions=config.get("max_position_embeddings", 2048),
            tied_embeddings=flag(("tie_word_embeddings", family.tied), config),
            attention_bias=flag(family.qkv_bias, config),
            qk_norm=flag(family.qk_norm, config),
            gated_mlp=family.gated,
            fused_attention=family.fused_attention,
            fused_gate=family.fused_gate,
            sliding_window=sliding_window(config),
            short_rotary=short_rotary(config),
            overflows=family.overflows,
        )
        values = _vector_values(shape, family, config)
        return shape if values == _vector_values(shape, _PLAIN, {}) else replace(shape, vector_values=values)

    @property
    def num_parameters(self) -> int:
        """All weights, tied ones once."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        vectors = _vector_values(self, _PLAIN, {}) if self.vector_values is None else self.vector_values
        return self.num_layers * (self._shared_values + self.num_layer_experts) + embeddings + vectors

    @property
    def num_matmul_parameters(self) -> int:
        """N of the FLOP formulas: weights that every token is multiplied by, the output head included; of the experts
        those that a token is sent to."""
        idle = self.num_layers * (self.num_experts - self.experts_per_token) * _values(self._feed_forward)
        looked_up = 0 if self.tied_embeddings else self.vocab_size * self.hidden_size
        return self.num_parameters - looked_up - (idle if self.num_experts else 0)

    @property
    def num_layer_experts(self) -> int:
        """Weights of all experts of one layer, or of its one feed-forward part."""
        return max(self.num_experts, 1) * _values(self._feed_forward)

    @property
    def _shared_values(self) -> int:
        """Weights of one layer that every token is multiplied by: attention, and a mixture's router."""
        return _values(self._attention) + self.num_experts * self.hidden_size

    def num_sharded(self, ranks: int) -> int:
        """Weights of which the fullest of `ranks` has its shard. All experts of a layer are one parameter, and it is
        dealt out by whole experts: where they do not come out even, some ranks hold one more."""
        if not self.num_experts or ranks == 1:
            return self.num_parameters // ranks
        experts = self.num_layers * self.num_layer_experts
        return (self.num_parameters - experts) // ranks + experts // self.num_experts * -(-self.num_experts // ranks)

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
        """Of low-rank adapters on all linear layers: rank · (inputs + outputs) each. Mixtures have none."""
        sizes = [*self._attention, *self._feed_forward]
        return self.num_layers * rank * sum(inputs + outputs for inputs, outputs in sizes)

    @property
    def largest_tensor(self) -> int:
        """Values of the largest one in a checkpoint: a table of the vocabulary, or a matrix."""
        matrices = (inputs * outputs for inputs, outputs in [*self._attention, *self._feed_forward])
        return max(self.vocab_size * self.hidden_size, *matrices)

    @property
    def largest_parameter(self) -> int:
        """The same in the learner, where gates and ups of all experts of a layer are one."""
        return max(self.largest_tensor, 2 * self.num_experts * self.hidden_size * self.intermediate_size)

    @property
    def _attention(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the matrices of one layer's attention."""
        h, queries, keys = self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        fed = [(h, queries + 2 * keys)] if self.fused_attention else [(h, queries), (h, keys), (h, keys)]
        return [*fed, (queries, h)]

    @property
    def _feed_forward(self) -> list[tuple[int, int]]:
        """The same of its feed-forward part, or of one expert."""
        h, m = self.hidden_size, self.intermediate_size
        up = [(h, m)] * (2 if self.gated_mlp else 1)
        return [*([(h, 2 * m)] if self.fused_gate else up), (m, h)]

    def activation_bytes(self, num_tokens: int, checkpointing: bool) -> int:
        """What the backward pass of one micro-batch keeps, in bf16: about 17 h + 4 · intermediate values a token and
        layer without checkpointing, one h with it. Of a mixture each expert that a token is sent to keeps its own
        input and output beside its 4 · intermediate, and for a moment the output twice more: weighted, and in order."""
        h, m = self.hidden_size, self.intermediate_size
        experts = self.experts_per_token * (4 * h + 4 * m)
        whole = 17 * h + (experts if self.num_experts else 4 * m)
        return 2 * num_tokens * self.num_layers * (h if checkpointing else whole)


def _values(sizes: list[tuple[int, int]]) -> int:
    return sum(inputs * outputs for inputs, outputs in sizes)


def _vector_values(shape: ModelShape, family: Family, config: Mapping[str, Any]) -> int:
    """Values of all biases and norms."""
    h, d, m = shape.hidden_size, shape.head_dim, shape.intermediate_size
    queries, keys = shape.num_heads * d, shape.num_kv_heads * d
    norm = h * (2 if family.norm_bias else 1)
    layer = family.norms * norm
    if shape.attention_bias:
        layer += queries + 2 * keys
    if flag(family.output_bias, config):
        layer += h
    if flag(family.mlp_bias, config):
        layer += h + m * (2 if shape.gated_mlp else 1)
    if shape.qk_norm:
        layer += queries + keys if family.qk_norm_is_whole else 2 * d
    return shape.num_layers * layer + norm


def read_shape(directory: Path, *, trained: bool = True) -> ModelShape:
    """The shape of a model directory; for engines alone where it is not `trained`.

    Raises:
        RecipeError: no config.json, or one of a model that the learner cannot train; says why, and what would help.
    """
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if trained and (reason := refusal(config)) is not None:
            raise RecipeError(f"model.path: {directory} cannot be trained: {reason}")
        return ModelShape.from_config(config)
    except FileNotFoundError:
        raise RecipeError(
            f"model.path: {directory} has no config.json: name a directory in Hugging Face format"
        ) from None
    except (KeyError, ValueError) as error:
        raise RecipeError(f"model.path: {file} does not describe a Llama- or Qwen-like decoder: {error!r}") from None
