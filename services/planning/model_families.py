"""Families of models by the `model_type` of their config.json: what their code adds to a plain decoder, which of them
the learner trains, and which keys make it refuse a model. docs/models.md is the table of what was compared.

The learner computes attention and the head itself. A window, a cap or a factor that it does not compute would make it
train on other log-probabilities than the engines sample from, so everything here is refused unless it is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Flag = bool | tuple[str, bool]
"""Always so; or as a key of config.json says, with what the model's code takes for granted where it is absent."""

_ATTENTION: Flag = ("attention_bias", False)
_MLP: Flag = ("mlp_bias", False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """What the code takes for granted where config.json does not say it."""

    number: int
    """In each layer: `num_experts`, which transformers saves as `num_local_experts`."""
    size: tuple[str, int]
    """The key of one expert's width, and the width."""
    chosen: int
    """`num_experts_per_tok`: how many compute a token."""

    def count(self, config: Mapping[str, Any]) -> int:
        """How many experts each layer of a model has."""
        return next((config[key] for key in ("num_experts", "num_local_experts") if config.get(key)), self.number)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What a model's code adds to its sizes. The defaults describe a plain decoder without biases."""

    tied: bool = False
    """Where config.json does not say whether head and embedding are one."""
    norms: int = 2
    """Of `hidden_size`, in each layer."""
    norm_bias: bool = False
    qk_norm: Flag = False
    qk_norm_is_whole: bool = False
    """One norm over all heads together, not one of a head's size."""
    gated: bool = True
    """Three matrices in the feed-forward part, or two."""
    fused_attention: bool = False
    """Queries, keys and values are one matrix in the checkpoint."""
    fused_gate: bool = False
    """Gate and up are one matrix in the checkpoint."""
    qkv_bias: Flag = False
    output_bias: Flag = False
    mlp_bias: Flag = False
    window: int | None = None
    """`sliding_window` where config.json does not give it."""
    window_is_switched: bool = False
    """`sliding_window` counts only with `use_sliding_window`."""
    experts: Experts | None = None
    """What a mixture's code takes for granted of its experts; None: the model is dense."""
    logit_factor: str = ""
    """The key of a factor on the logits that the learner computes (learner/model/token_scorer.py)."""
    overflows: bool = False
    """Activations leave the range of float16, and vLLM refuses it."""
    fixed: tuple[tuple[str, bool], ...] = ()
    """Keys that vLLM's code passes over or refuses, by the only value that it computes, which is also the default."""


FAMILIES: Mapping[str, Family] = {
    "arcee": Family(gated=False, qkv_bias=_ATTENTION, output_bias=_ATTENTION, mlp_bias=_MLP),
    "cohere": Family(
        tied=True, norms=1, qk_norm=("use_qk_norm", False), qk_norm_is_whole=True, logit_factor="logit_scale",
        fixed=(("attention_bias", False), ("tie_word_embeddings", True)),
    ),
    "cohere2": Family(
        tied=True, norms=1, window=4096, logit_factor="logit_scale",
        fixed=(("attention_bias", False), ("tie_word_embeddings", True)),
    ),
    "ernie4_5": Family(tied=True, fixed=(("use_bias", False),)),
    "exaone4": Family(qk_norm=True, window=4096),
    "gemma": Family(tied=True, fixed=(("attention_bias", False),)),
    "gemma3_text": Family(
        overflows=True, tied=True, norms=4, qk_norm=True, qkv_bias=_ATTENTION, output_bias=_ATTENTION, window=4096
    ),
    "glm": Family(fused_gate=True, qkv_bias=("attention_bias", True)),
    "glm4": Family(overflows=True, fused_gate=True, norms=4, qkv_bias=("attention_bias", True)),
    "granite": Family(
        qkv_bias=_ATTENTION, output_bias=_ATTENTION, mlp_bias=_MLP, logit_factor="logits_scaling",
    ),
    "llama": Family(qkv_bias=_ATTENTION, output_bias=_ATTENTION, mlp_bias=_MLP),
    "mistral": Family(window=4096),
    "mixtral": Family(experts=Experts(number=8, size=("intermediate_size", 14336), chosen=2)),
    "olmo2": Family(qk_norm=True, qk_norm_is_whole=True, qkv_bias=_ATTENTION, output_bias=_ATTENTION),
    "olmo3": Family(qk_norm=True, qk_norm_is_whole=True, qkv_bias=_ATTENTION, output_bias=_ATTENTION, window=4096),
    "phi3": Family(fused_attention=True, fused_gate=True),
    "qwen2": Family(qkv_bias=True, window_is_switched=True, fixed=(("use_sliding_window", False),)),
    "qwen3": Family(
        qk_norm=True, window_is_switched=True,
        fixed=(("attention_bias", False), ("use_sliding_window", False)),
    ),
    "qwen3_moe": Family(
        qk_norm=True, window_is_switched=True,
        experts=Experts(number=128, size=("moe_intermediate_size", 768), chosen=8),
        fixed=(("attention_bias", False), ("use_sliding_window", False)),
    ),
    "seed_oss": Family(qkv_bias=("attention_bias", True), output_bias=("attention_out_bias", False), mlp_bias=_MLP),
    "smollm3": Family(
        tied=True, qkv_bias=_ATTENTION, output_bias=_ATTENTION, mlp_bias=_MLP, window_is_switched=True
    ),
    "starcoder2": Family(
        tied=True, gated=False, norm_bias=True,
        qkv_bias=("use_bias", True), output_bias=("use_bias", True), mlp_bias=("use_bias", True),
    ),
}  # fmt: skip
"""Those whose log-probabilities, names, adapters and sizes are compared (tests/model_table.py)."""

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping", "logits_soft_cap", "logit_softcapping")
_FACTORS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
_OTHER_ATTENTION = ("use_bidirectional_attention", "dual_chunk_attention_config")
_ROTARY = ("default", "linear", "llama3", "yarn", "longrope")
"""Rotary embeddings that engines and learner compute alike; `dynamic` is none of them."""


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why the learner cannot train a model with this config.json, and what would help; None: it can."""
    kind = str(config.get("model_type", ""))
    if (unknown := _unknown_experts(config, FAMILIES.get(kind))) is not None:
        return unknown
    for key in _CAPS:
        if config.get(key) is not None:
            return f"the learner does not compute a cap on attention or logits ({key}: {config[key]}): choose another"
    family = FAMILIES.get(kind)
    if family is None:
        return f"models of type {kind!r} are not supported: docs/models.md lists those that are"
    if config.get("quantization_config"):
        return "its weights are quantized, and the learner trains whole ones: name the model that it was made from"
    for key, value in family.fixed:
        if config.get(key) not in (None, value):
            return f"vLLM computes such a model as if {key} were {str(value).lower()}: choose another"
    for key in _FACTORS:
        if key != family.logit_factor and config.get(key) not in (None, 1):
            return f"the learner does not compute a factor on the logits ({key}: {config[key]}): choose another"
    for key in _OTHER_ATTENTION:
        if config.get(key):
            return f"the learner does not compute its attention ({key}): choose another model"
    for rotary in _rotary_types(config):
        if rotary not in _ROTARY:
            return f"rotary embeddings of type {rotary!r} are computed otherwise by the engines: choose another model"
    return None


def _unknown_experts(config: Mapping[str, Any], family: Family | None) -> str | None:
    """Why experts cannot be trained: those of families that are not proven, and layers without any among others."""
    if family is not None and family.experts is not None:
        if config.get("decoder_sparse_step") not in (None, 1) or config.get("mlp_only_layers"):
            return "some of its layers have no experts (decoder_sparse_step, mlp_only_layers): choose another model"
        return None
    text = config.get("text_config")
    mixtures = ", ".join(name for name, each in FAMILIES.items() if each.experts is not None)
    for part in (config, text if isinstance(text, Mapping) else {}):
        for key in _EXPERTS:
            if part.get(key) not in (None, 0, 1):
                return (
                    f"such mixtures of experts are not supported yet ({key}: {part[key]}): choose a dense model, or "
                    f"one of {mixtures}"
                )
    return None


def flag(value: Flag, config: Mapping[str, Any]) -> bool:
    """What a family's flag is for this model."""
    if isinstance(value, bool):
        return value
    key, default = value
    given = config.get(key)
    return default if given is None else bool(given)


def sliding_window(config: Mapping[str, Any]) -> int | None:
    """Tokens that some layer attends to at most, the token itself included; None: every layer attends to all."""
    family = FAMILIES.get(str(config.get("model_type", "")), Family())
    window = config.get("sliding_window", family.window)
    layers = config.get("layer_types")
    if layers is not None and "sliding_attention" not in layers:
        return None
    if family.window_is_switched and not config.get("use_sliding_window") and layers is None:
        return None
    return int(window) if window else None


def short_rotary(config: Mapping[str, Any]) -> int | None:
    """Positions up to which `longrope` keeps the short factors; None: the embedding is the same for all lengths.

    Beyond them engines take the long factors for every sequence, and the learner for a micro-batch with a long one.
    """
    for rotary in _rotary(config):
        if _type_of(rotary, config) == "longrope":
            original = rotary.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
            return None if original is None else int(original)
    return None


def _rotary_types(config: Mapping[str, Any]) -> set[str]:
    return {_type_of(rotary, config) for rotary in _rotary(config)}


def _rotary(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of the rotary embeddings: of one for all layers, or of one for each type of layer."""
    for key in ("rope_parameters", "rope_scaling"):
        settings = config.get(key)
        if isinstance(settings, Mapping):
            nested = [value for value in settings.values() if isinstance(value, Mapping)]
            yield from nested or [settings]


def _type_of(rotary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    kind = str(rotary.get("rope_type", rotary.get("type", "default")))
    # What Phi-3's first releases called it.
    return "longrope" if config.get("model_type") == "phi3" and kind in {"su", "yarn"} else kind
