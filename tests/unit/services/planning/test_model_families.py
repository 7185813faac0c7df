"""What config.json alone tells: models that cannot be trained are refused by name, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.planning.model_families import refusal, short_rotary, sliding_window
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.run.preflight import check_lengths
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.planning.test_memory_plan import recipe

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 8192,
}  # fmt: skip


def write(directory: Path, **changes: Any) -> Path:
    (directory / "config.json").write_text(json.dumps(LLAMA | changes), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model_type": "deepseek_v3", "n_routed_experts": 256},
            "mixtures of experts are not supported yet .n_routed_experts: 256.: choose .* one of mixtral, qwen3_moe",
        ),
        ({"model_type": "gpt_oss", "num_local_experts": 32}, "mixtures of experts are not supported yet"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [0]}, "some of its layers have no experts"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "some of its layers have no experts"),
        ({"model_type": "qwen3_moe", "attention_bias": True}, "as if attention_bias were false"),
        ({"num_experts": 4}, "mixtures of experts are not supported yet"),
        ({"model_type": "qwen3_5_moe", "text_config": {"num_experts": 4}}, "mixtures of experts are not supported yet"),
        ({"model_type": "stablelm"}, "'stablelm' are not supported: docs/models.md"),
        ({"model_type": "gemma2", "final_logit_softcapping": 30.0}, "a cap .*final_logit_softcapping: 30.0"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "a cap .*attn_logit_softcapping"),
        ({"logit_scale": 0.1}, "a factor on the logits .logit_scale: 0.1"),
        ({"model_type": "granite", "logits_scaling": 8.0, "logit_scale": 2}, "a factor on the logits .logit_scale: 2"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_parameters": {"full_attention": {"rope_type": "new"}}}, "'new'"),
        ({"model_type": "gemma", "attention_bias": True}, "vLLM computes such a model as if attention_bias were false"),
        ({"model_type": "cohere", "tie_word_embeddings": False}, "as if tie_word_embeddings were true"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "as if use_sliding_window were false"),
        ({"model_type": "qwen2", "dual_chunk_attention_config": {"chunk_size": 1}}, "dual_chunk_attention_config"),
    ],
)
def test_what_the_learner_would_get_wrong_is_refused_with_its_key(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    directory = write(tmp_path, **changes)
    with pytest.raises(RecipeError, match=f"model.path: .*cannot be trained: .*{words}"):
        read_shape(directory)
    assert read_shape(directory, trained=False).hidden_size == 64, "engines alone may take it"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_experts": None, "num_local_experts": 0, "final_logit_softcapping": None, "logit_scale": 1.0},
        {"model_type": "granite", "logits_scaling": 8.0},
        {"model_type": "cohere", "logit_scale": 0.0625},
        {"rope_scaling": None, "quantization_config": None},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
        {"model_type": "qwen3_moe", "num_experts": 128, "decoder_sparse_step": 1, "mlp_only_layers": []},
        {"model_type": "phi3", "rope_scaling": {"type": "su"}, "original_max_position_embeddings": 4096},
    ],
)
def test_neutral_keys_and_known_factors_are_not_refused(changes: dict[str, Any]) -> None:
    assert refusal(LLAMA | changes) is None


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({}, None),
        ({"model_type": "mistral"}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "mistral", "sliding_window": 1024}, 1024),
        ({"model_type": "qwen2", "sliding_window": 131072, "use_sliding_window": False}, None),
        ({"model_type": "qwen2", "sliding_window": 131072}, None),
        ({"model_type": "smollm3", "sliding_window": 2048, "use_sliding_window": True}, 2048),
        ({"model_type": "qwen3", "sliding_window": None, "layer_types": ["full_attention"] * 2}, None),
        ({"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 6}, 512),
        ({"model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention"]}, 4096),
        ({"sliding_window": 64}, 64),
    ],
)
def test_windows_by_family(changes: dict[str, Any], window: int | None) -> None:
    """The last one: vLLM would put a window on any family that names one."""
    assert sliding_window(LLAMA | changes) == window


def test_longer_than_the_window_is_refused_for_training_alone(tmp_path: Path) -> None:
    shape = read_shape(write(tmp_path, model_type="mistral", sliding_window=4096))
    fitting = recipe(rollout={"max_model_tokens": 4096})
    check_lengths(fitting, shape)
    longer = recipe(rollout={"max_model_tokens": 4097})
    with pytest.raises(RecipeError, match=r"rollout\.max_model_tokens: 4097 .*4096 tokens of its sliding window.*4096"):
        check_lengths(longer, shape)
    check_lengths(longer, shape, trained=False)


def test_longer_than_the_references_window_is_refused(tmp_path: Path) -> None:
    write(tmp_path, model_type="mistral", sliding_window=2048)
    taught = recipe(learner={"kl": {"beta": 1.0, "reference": str(tmp_path)}}, rollout={"max_model_tokens": 4096})
    with pytest.raises(RecipeError, match=r"4096 is more than the reference's 2048 tokens of its sliding window"):
        check_lengths(taught, ModelShape.from_config(LLAMA))


def test_longer_than_the_short_rotary_embedding_is_refused(tmp_path: Path) -> None:
    long_rope = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    config = {"model_type": "phi3", "rope_scaling": long_rope, "original_max_position_embeddings": 2048}
    assert short_rotary(LLAMA | config) == 2048
    with pytest.raises(RecipeError, match=r"rollout\.max_model_tokens: 4096 .*longrope.*lower it to 2048"):
        check_lengths(recipe(), read_shape(write(tmp_path, **config)))
