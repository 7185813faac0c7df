"""The memory plan against known models: bytes by hand, what is chosen so that it fits, what is refused and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rayzero.services.planning.memory_plan import GIB, MemoryPlan, engine_parts, learner_parts, plan_memory, with_plan
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.published_shapes import PUBLISHED
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError

SMALL, QWEN3, LLAMA = (PUBLISHED[name] for name in ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B"))
SMALL_PARAMETERS, LLAMA_PARAMETERS = 494_032_768, 8_030_261_248
"""As their model cards and safetensors headers count them."""


def recipe(**sections: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "plan",
        "model": {"path": "x", "dtype": "bfloat16"},
        "data": {"train": [{"kind": "function", "function": "rayzero.services.data.tasks.numbers:number_after"}]},
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "training": {"num_updates": 1, "groups_per_update": 64, "group_size": 8},
        "rollout": {"device": "cuda", "max_model_tokens": 4096, "max_num_seqs": 128, "kv_cache_bytes": 4 * GIB},
    }
    for name, changes in sections.items():
        content[name] = content.get(name, {}) | changes
    return Recipe.model_validate(content)


def test_published_models_weigh_what_their_cards_say() -> None:
    assert SMALL.num_parameters == SMALL_PARAMETERS
    assert LLAMA.num_parameters == LLAMA_PARAMETERS
    assert SMALL.kv_bytes_per_token("bfloat16") == 2 * 24 * 2 * 64 * 2
    assert QWEN3.kv_bytes_per_token("bfloat16") == 112 * 1024
    assert LLAMA.kv_bytes_per_token("bfloat16") == 128 * 1024


def test_one_learner_gpu_by_hand() -> None:
    parts = learner_parts(recipe(), SMALL, checkpointing=False, offload=False)
    assert parts["weights"] == 2 * SMALL_PARAMETERS
    assert parts["fp32 masters"] == parts["gradients"] == 4 * SMALL_PARAMETERS
    assert parts["moments"] == 8 * SMALL_PARAMETERS
    assert parts["activations"] == 2 * 8192 * 24 * (17 * 896 + 4 * 4864)
    assert parts["logits"] == 2**30 + 151936 * 896 * 6
    assert parts["send buffer"] == 2 * SMALL_PARAMETERS
    head_rows = learner_parts(recipe(learner={"compute": {"head_chunk_tokens": 100}}), SMALL, False, False)
    assert head_rows["logits"] == 100 * 151936 * 4 + 151936 * 896 * 6


def test_sharding_offloading_and_adapters_by_hand() -> None:
    four = learner_parts(recipe(cluster={"learner_gpus": 4}), LLAMA, checkpointing=True, offload=False)
    assert four["fp32 masters"] == four["gradients"] == LLAMA_PARAMETERS
    assert four["moments"] == 2 * LLAMA_PARAMETERS
    table = 2 * 128256 * 4096
    assert four["send buffer"] == 3 * table, "two buckets of the largest tensor, and one put together"
    assert four["weights"] == 2 * table, "head and embedding are gathered by themselves, the next beside it"
    assert four["gradients on their way"] == 3 * table, "as it was computed, and in fp32"
    assert four["activations"] == 2 * 8192 * (32 * 4096 + 17 * 4096 + 4 * 14336)
    offloaded = learner_parts(recipe(), LLAMA, checkpointing=True, offload=True)
    assert (offloaded["fp32 masters"], offloaded["gradients"], offloaded["moments"]) == (0, 0, 0)
    adapters = learner_parts(recipe(learner={"lora": {"rank": 8}}), LLAMA, checkpointing=True, offload=False)
    assert adapters["fp32 masters"] + adapters["gradients"] + adapters["moments"] == (
        16 * LLAMA.num_adapter_parameters(8)
    )
    assert adapters["weights"] == 2 * LLAMA_PARAMETERS
    assert adapters["send buffer"] == 2 * LLAMA.num_adapter_parameters(8) == LLAMA.sync_bytes("bfloat16", 8)
    reference = learner_parts(recipe(learner={"kl": {"beta": 0.1}}), LLAMA, True, False)
    assert reference["reference"] == 2 * LLAMA_PARAMETERS
    both = {"kl": {"beta": 0.1}, "lora": {"rank": 8}}
    adapted = learner_parts(recipe(learner=both), LLAMA, True, False)
    assert adapted["reference"] == 2 * LLAMA.num_adapter_parameters(8), "the frozen weights are the policy's own"
    taught = learner_parts(recipe(learner=both | {"kl": {"beta": 0.1, "reference": "x"}}), LLAMA, True, False)
    assert taught["reference"] == 2 * LLAMA_PARAMETERS
    exact = learner_parts(recipe(model={"dtype": "float32"}), SMALL, False, False)
    assert exact["weights"] + exact.get("fp32 masters", 0) == 4 * SMALL_PARAMETERS


def test_engine_by_hand() -> None:
    parts = engine_parts(recipe(), LLAMA)
    assert parts["weights"] == 2 * LLAMA_PARAMETERS
    assert parts["keys and values"] == 4 * GIB
    assert parts["staging"] == 2 * LLAMA_PARAMETERS
    assert parts["activations"] == 8192 * (4 * 4096 + 2 * 14336) * 2 + 3 * 128 * 128256 * 4
    shared = engine_parts(recipe(rollout={"tensor_parallel_size": 4}), LLAMA)
    assert shared["weights"] == LLAMA_PARAMETERS // 2
    table = 2 * 128256 * 4096
    assert shared["staging"] == 2 * table, "two buckets, whatever the model's size"
    sharded = engine_parts(recipe(cluster={"learner_gpus": 4}), LLAMA)
    assert sharded["staging"] == parts["staging"] + 2 * table, "buckets arrive, and are staged beside generation"
    streamed = recipe(rollout={"weight_loading": "streamed"})
    assert engine_parts(streamed, LLAMA)["staging"] == 2 * table
    assert learner_parts(streamed, LLAMA, True, True)["send buffer"] == 2 * table
    assert engine_parts(streamed, QWEN3)["staging"] == 2 * 2 * 1024 * 151936
    flat = replace(QWEN3, vocab_size=1000)
    assert engine_parts(streamed, flat)["staging"] == 2 * 2**28, "two buckets of their usual size"
    assert engine_parts(recipe(cluster={"weight_transport": "gloo"}), LLAMA)["staging"] == 0
    merged = recipe(cluster={"weight_transport": "gloo"}, learner={"lora": {"rank": 8}})
    assert engine_parts(merged, LLAMA)["staging"] == 2 * LLAMA_PARAMETERS, "adapters are merged on the engine's GPU"
    for scales in ("fp8", "fp8_per_channel", "fp8_per_block"):
        fp8 = engine_parts(recipe(rollout={"quantization": scales}), LLAMA)["weights"]
        assert fp8 == LLAMA_PARAMETERS + 2 * 128256 * 4096, "all but embedding and head in one byte"


def test_what_an_engine_needs_at_its_first_sync_is_counted() -> None:
    table, fused = 128256 * 4096, 2 * 4096 * 14336
    parts = engine_parts(recipe(), LLAMA)
    assert parts["loading"] == 2 * table, "the head, made anew beside itself"
    assert (parts["digests"], parts["NCCL"]) == (40 * 2**20, GIB // 2)
    assert learner_parts(recipe(), LLAMA, True, True)["NCCL"] == GIB // 2
    waiting = 2 * fused
    assert engine_parts(recipe(rollout={"tensor_parallel_size": 4}), LLAMA)["loading"] == table // 2 + waiting
    shallow = replace(LLAMA, vocab_size=1000)
    assert engine_parts(recipe(), shallow)["loading"] == 2 * fused
    assert engine_parts(recipe(rollout={"quantization": "fp8_per_block"}), shallow)["loading"] == 7 * fused
    assert engine_parts(recipe(learner={"lora": {"rank": 8}}), shallow)["loading"] == 8 * fused // 2
    by_host = engine_parts(recipe(cluster={"weight_transport": "gloo"}), LLAMA)
    assert (by_host["digests"], by_host["NCCL"]) == (0, 0)
    one_gpu = recipe(cluster={"colocate": "shared"})
    assert engine_parts(one_gpu, LLAMA)["NCCL"] == learner_parts(one_gpu, LLAMA, True, True)["NCCL"] == 0


def test_graphs_are_counted_with_the_batches_they_are_captured_for() -> None:
    def graphs(**rollout: Any) -> int:
        return engine_parts(recipe(rollout=rollout), SMALL)["CUDA graphs"]

    assert [graphs(max_num_seqs=number) for number in (64, 512, 1024)] == [GIB, GIB, 2 * GIB]
    assert graphs(max_num_seqs=None) == 2 * GIB, "1,024 where the recipe says nothing"
    assert graphs(enforce_eager=True) == 0


@pytest.mark.parametrize(
    ("shape", "gib", "chosen"),
    [
        (SMALL, 79, (False, False)),
        (SMALL, 20, (True, False)),
        (PUBLISHED["Qwen/Qwen3-4B"], 79, (True, True)),
        (LLAMA, 79, (True, True)),
    ],
)
def test_what_is_chosen_so_that_the_learner_fits(shape: ModelShape, gib: int, chosen: tuple[bool, bool]) -> None:
    small_cache = recipe(rollout={"kv_cache_bytes": GIB})
    plan = plan_memory(small_cache, shape, gib * GIB)
    plan.check()
    assert (plan.activation_checkpointing, plan.offload_optimizer) == chosen
    assert plan.host_bytes == (16 * shape.num_parameters if chosen[1] else 0)
    compute = with_plan(small_cache, plan).learner.compute
    assert (compute.activation_checkpointing, compute.offload_optimizer) == chosen


def test_an_engine_with_no_room_for_two_models_takes_buckets_in_its_pause() -> None:
    qwen8b = PUBLISHED["Qwen/Qwen3-8B"]
    roomy = recipe(rollout={"kv_cache_bytes": 8 * GIB})
    assert plan_memory(roomy, qwen8b, 79 * GIB).weight_loading == "staged"
    full = recipe(rollout={"kv_cache_bytes": 50 * GIB}, cluster={"learner_gpus": 8})
    plan = plan_memory(full, qwen8b, 79 * GIB)
    plan.check()
    assert plan.weight_loading == "streamed" == with_plan(full, plan).rollout.weight_loading
    asked = recipe(rollout={"kv_cache_bytes": 50 * GIB, "weight_loading": "staged"}, cluster={"learner_gpus": 8})
    assert "engine needs" in refusal(plan_memory(asked, qwen8b, 79 * GIB))
    assert plan_memory(recipe(rollout={"tensor_parallel_size": 2}), qwen8b, 79 * GIB).weight_loading == "auto"


def test_what_a_sync_takes_does_not_grow_with_the_model() -> None:
    sharded = {"cluster": {"learner_gpus": 40}, "rollout": {"tensor_parallel_size": 8}}
    small, large = (PUBLISHED[f"meta-llama/Llama-3.1-{size}B"] for size in (8, 70))
    deep = replace(small, num_layers=10 * small.num_layers)
    for parts in (lambda s: learner_parts(recipe(**sharded), s, True, False)["send buffer"],
                  lambda s: engine_parts(recipe(**sharded), s)["staging"]):  # fmt: skip
        assert parts(deep) == parts(small)
        assert parts(large) == 2 * parts(small), "only with its largest tensor"


def test_the_longest_sequence_is_the_last_that_fits() -> None:
    llama = PUBLISHED["meta-llama/Llama-3.1-70B"]
    sharded = recipe(cluster={"learner_gpus": 40}, rollout={"tensor_parallel_size": 8, "max_model_tokens": 5120})
    longest = plan_memory(sharded, llama, 79 * GIB).longest_sequence
    assert longest is not None and 5120 < longest < llama.max_positions

    def fits(tokens: int) -> bool:
        asked = recipe(
            cluster={"learner_gpus": 40},
            rollout={"tensor_parallel_size": 8, "max_model_tokens": tokens},
            learner={"compute": {"tokens_per_microbatch": 64}},
        )
        return plan_memory(asked, llama, 79 * GIB).gpus[0].fits

    assert fits(longest) and not fits(longest + 1), "a sequence is not cut, whatever a micro-batch is to hold"
    assert plan_memory(recipe(), SMALL, 79 * GIB).longest_sequence == SMALL.max_positions


def test_learner_and_engines_on_all_gpus_of_a_node_take_turns() -> None:
    qwen8b = PUBLISHED["Qwen/Qwen3-8B"]
    node = recipe(
        cluster={"learner_gpus": 8, "colocate": "sleep"},
        rollout={"num_workers": 4, "max_workers": 4, "tensor_parallel_size": 2},
        training={"max_staleness": 0},
    )
    plan = plan_memory(node, qwen8b, 79 * GIB)
    plan.check()
    (gpu,) = plan.gpus
    assert (gpu.role, gpu.count, plan.host_bytes) == ("learner and engine", 8, 0)
    assert gpu.parts["engine's NCCL"] == gpu.parts["learner's NCCL"] == GIB // 2
    for wrong in ({"num_workers": 3, "max_workers": 3}, {"num_workers": 8, "max_workers": 8}):
        with pytest.raises(ValueError, match=r"all of them: .* make them equal"):
            recipe(
                cluster={"learner_gpus": 8, "colocate": "sleep"},
                rollout={"tensor_parallel_size": 2} | wrong,
                training={"max_staleness": 0},
            )
    with pytest.raises(ValueError, match=r"set rollout\.max_workers to rollout\.num_workers \(4\)"):
        recipe(
            cluster={"learner_gpus": 8, "colocate": "sleep"},
            rollout={"num_workers": 4, "tensor_parallel_size": 2},
            training={"max_staleness": 0},
        )


def refusal(plan: MemoryPlan) -> str:
    with pytest.raises(RecipeError) as refused:
        plan.check()
    return str(refused.value)


def test_what_cannot_fit_is_refused_with_figures_and_remedies() -> None:
    text = refusal(plan_memory(recipe(rollout={"kv_cache_bytes": GIB}), LLAMA, 24 * GIB))
    assert text.startswith("learner needs ")
    assert "weights 15.0" in text
    assert "cluster.learner_gpus" in text
    text = refusal(plan_memory(recipe(rollout={"kv_cache_bytes": 70 * GIB}), SMALL, 79 * GIB))
    assert text.startswith("engine needs ")
    assert "keys and values 70.0" in text
    assert "rollout.kv_cache_bytes" in text
    eight = recipe(cluster={"learner_gpus": 8}, rollout={"kv_cache_bytes": GIB})
    plan_memory(eight, LLAMA, 79 * GIB).check()


def test_the_recipes_own_choice_is_not_overruled() -> None:
    never = recipe(learner={"compute": {"activation_checkpointing": False, "offload_optimizer": False}})
    assert "learner needs" in refusal(plan_memory(never, LLAMA, 79 * GIB))
    always = recipe(learner={"compute": {"activation_checkpointing": True}})
    assert plan_memory(always, SMALL, 79 * GIB).activation_checkpointing
    with pytest.raises(ValueError, match="one learner GPU"):
        recipe(learner={"compute": {"offload_optimizer": True}}, cluster={"learner_gpus": 2})


def test_two_on_one_gpu_share_its_memory_and_a_sleeper_leaves_most_of_it() -> None:
    def planned(how: str) -> int:
        (gpu,) = plan_memory(recipe(cluster={"colocate": how}), SMALL, 79 * GIB).gpus
        assert "engine's staging" not in gpu.parts or gpu.parts["engine's staging"] == 0
        return gpu.num_bytes

    apart = sum(gpu.num_bytes for gpu in plan_memory(recipe(), SMALL, 79 * GIB).gpus)
    assert planned("shared") == apart - 2 * SMALL_PARAMETERS - 2 * GIB // 2, "no staging, and NCCL at neither end"
    awake = engine_parts(recipe(), SMALL)
    assert planned("sleep") == planned("shared") - sum(
        awake[name] for name in ("weights", "keys and values", "activations")
    )


def test_a_delta_takes_up_to_a_quarter_of_the_weights_at_each_end() -> None:
    asked = recipe(cluster={"delta_sync": True})
    assert learner_parts(asked, SMALL, False, False)["delta"] == 2 * SMALL_PARAMETERS // 4
    assert engine_parts(asked, SMALL)["delta"] == 2 * SMALL_PARAMETERS // 4
    assert engine_parts(recipe(), SMALL)["delta"] == 0


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"cluster": {"learner_gpus": 2}}, "cluster.learner_gpus above 1"),
        ({"cluster": {"colocate": "shared"}}, "cluster.colocate"),
        ({"learner": {"lora": {"rank": 8}}}, "learner.lora"),
        ({"rollout": {"weight_loading": "streamed"}}, "rollout.weight_loading: streamed"),
        ({"rollout": {"tensor_parallel_size": 2}}, "rollout.tensor_parallel_size above 1"),
    ],
)
def test_delta_sync_is_refused_where_an_end_holds_no_whole_version(sections: dict[str, Any], what: str) -> None:
    cluster = sections.get("cluster", {}) | {"delta_sync": True}
    with pytest.raises(ValueError, match=f"with {what} they do not: leave cluster.delta_sync out"):
        recipe(**sections | {"cluster": cluster})
