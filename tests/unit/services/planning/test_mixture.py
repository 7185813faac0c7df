"""Mixtures of experts: what is refused of them, and what their plan counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from rayzero.services.planning.memory_plan import engine_parts, learner_parts
from rayzero.services.planning.mixture import check_mixture
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.published_shapes import PUBLISHED
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.planning.test_memory_plan import recipe

QWEN, MIXTRAL = PUBLISHED["Qwen/Qwen3-30B-A3B"], PUBLISHED["mistralai/Mixtral-8x7B-v0.1"]
DENSE = PUBLISHED["Qwen/Qwen3-8B"]
LORA = {"lora": {"rank": 16}}


def test_adapters_and_quantized_engines_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"learner\.lora: the model is a mixture of 128 experts"):
        check_mixture(recipe(learner=LORA), QWEN)
    quantized = recipe()
    quantized = quantized.model_copy(
        update={"rollout": quantized.rollout.model_copy(update={"quantization": "fp8"})}
    )  # fmt: skip
    with pytest.raises(RecipeError, match=r"rollout\.quantization: the model is a mixture of 8 experts"):
        check_mixture(quantized, MIXTRAL)
    check_mixture(recipe(), QWEN)
    check_mixture(recipe(learner=LORA), DENSE)


REPLAY: dict[str, Any] = {"routing_replay": True}


def test_routing_is_replayed_of_mixtures_alone() -> None:
    check_mixture(recipe(learner=REPLAY), QWEN)
    check_mixture(recipe(learner=REPLAY), MIXTRAL)
    with pytest.raises(RecipeError, match=r"learner\.routing_replay: the model is no mixture .*: leave it out"):
        check_mixture(recipe(learner=REPLAY), DENSE)


def test_what_cannot_go_with_replayed_routing_is_refused_by_its_key() -> None:
    with pytest.raises(RecipeError, match=r"learner\.routing_replay: .* leave learner\.compute\.compile out"):
        check_mixture(recipe(learner={**REPLAY, "compute": {"compile": True}}), QWEN)
    with pytest.raises(RecipeError, match=r"learner\.routing_replay: .* set rollout\.prefix_caching: true"):
        check_mixture(recipe(learner=REPLAY, rollout={"device": "cuda", "prefix_caching": False}), QWEN)
    check_mixture(recipe(learner=REPLAY, rollout={"device": "cpu", "prefix_caching": False}), QWEN)


def test_published_mixtures_have_as_many_weights_as_their_cards_say() -> None:
    assert QWEN.num_parameters == 30_532_122_624
    assert MIXTRAL.num_parameters == 46_702_792_704
    # 3.3 and 12.9 billion "activated", of which the embedding is looked up and not multiplied.
    assert QWEN.num_matmul_parameters == pytest.approx(3.35e9 - 2048 * 151936, rel=0.01)
    assert MIXTRAL.num_matmul_parameters == pytest.approx(12.88e9 - 4096 * 32000, rel=0.01)


@pytest.mark.parametrize("shape", [QWEN, MIXTRAL])
def test_experts_that_do_not_come_out_even_make_some_ranks_hold_more(shape: ModelShape) -> None:
    assert shape.num_sharded(8) == pytest.approx(shape.num_parameters / 8)
    assert shape.num_sharded(1) == shape.num_parameters
    uneven = shape.num_sharded(12)
    assert uneven > shape.num_parameters / 12
    each = 3 * shape.hidden_size * shape.intermediate_size * shape.num_layers
    assert uneven - shape.num_parameters / 12 == pytest.approx(
        each * (-(-shape.num_experts // 12) - shape.num_experts / 12), rel=1e-6
    )


def test_the_plan_counts_all_experts_as_weights_and_those_of_a_token_as_activations() -> None:
    run = recipe(cluster={"learner_gpus": 8}, rollout={"tensor_parallel_size": 2})
    learner, engine = learner_parts(run, QWEN, True, False), engine_parts(run, QWEN)
    assert learner["fp32 masters"] == pytest.approx(4 * QWEN.num_parameters / 8)
    assert engine["weights"] == QWEN.num_parameters  # bf16 on two GPUs
    experts = 3 * 128 * 2048 * 768
    assert engine["loading"] >= 2 * experts // 2, "a layer of vLLM's is all experts of one of the model's"
    gates_and_ups = 2 * 128 * 2048 * 768 * 2
    assert learner["send buffer"] >= gates_and_ups, "put together as one parameter"
    dense = ModelShape(**{
        name: getattr(QWEN, name) for name in QWEN.__dataclass_fields__ if "experts" not in name
    })  # fmt: skip
    more = QWEN.activation_bytes(1000, False) - dense.activation_bytes(1000, False)
    assert more == 2 * 1000 * 48 * (8 * (4 * 2048 + 4 * 768) - 4 * 768)
    assert QWEN.activation_bytes(1000, True) == dense.activation_bytes(1000, True)


def test_what_experts_keep_for_their_gradient_is_within_what_is_planned() -> None:
    """Measured: storages that autograd saves in one block of experts, its parameters left out."""
    h, m, tokens = 128, 48, 256
    config = Qwen3MoeConfig(
        hidden_size=h, num_experts=16, num_experts_per_tok=8, moe_intermediate_size=m, norm_topk_prob=True
    )
    config._experts_implementation = "grouped_mm"
    block = Qwen3MoeSparseMoeBlock(config).bfloat16()
    own = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(torch.randn(1, tokens, h, dtype=torch.bfloat16, requires_grad=True))
    kept = sum(storage.nbytes() for storage in saved.values())
    planned = 2 * tokens * 8 * (4 * h + 4 * m)
    assert planned / 2 < kept < planned
