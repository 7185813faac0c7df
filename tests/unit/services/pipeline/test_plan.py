"""`rayzero check` of a pipeline: the shipped ones stand, and the plan's arithmetic is that of the shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayzero.services.cli.app import app
from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.pipeline.plan import CPU, check_pipeline, decode_rate, plan_stage
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.published_shapes import PUBLISHED
from rayzero.services.schema.errors import RecipeError

RECIPES = Path("deploy/recipes")


@pytest.mark.parametrize("name", ["r1_tiny_cpu", "r1_zero_tiny_cpu", "r1_qwen_gpu"])
def test_every_shipped_pipeline_passes_rayzero_check(name: str) -> None:
    result = CliRunner().invoke(app, ["check", str(RECIPES / f"{name}.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    plans = json.loads(result.output)
    assert all(plan["seconds"] > 0 for plan in plans)


def test_published_shapes_have_their_published_sizes() -> None:
    sizes = {name: round(shape.num_parameters / 1e9, 2) for name, shape in PUBLISHED.items()}
    assert sizes == {
        "Qwen/Qwen2.5-0.5B": 0.49, "Qwen/Qwen2.5-0.5B-Instruct": 0.49, "Qwen/Qwen2.5-1.5B": 1.54,
        "Qwen/Qwen2.5-7B": 7.62, "Qwen/Qwen3-0.6B": 0.6, "Qwen/Qwen3-4B": 4.02, "meta-llama/Llama-3.1-8B": 8.03,
        "Qwen/Qwen3-8B": 8.19, "Qwen/Qwen3-30B-A3B": 30.53, "mistralai/Mixtral-8x7B-v0.1": 46.7,
        "meta-llama/Llama-3.1-70B": 70.55,
    }  # fmt: skip


def test_a_7b_learner_with_adapters_fits_where_all_weights_would_not() -> None:
    loaded = load_pipeline(RECIPES / "r1_qwen_gpu.yaml")
    adapters = plan_stage(loaded, "zero", 0)
    on_the_gpu = ["recipe.learner.lora=null", "recipe.learner.compute.offload_optimizer=false"]
    with pytest.raises(RecipeError, match=r"stage zero: learner needs 15\d\.\d GiB on each GPU"):
        plan_stage(load_pipeline(RECIPES / "r1_qwen_gpu.yaml", on_the_gpu), "zero", 0)
    offloaded = plan_stage(load_pipeline(RECIPES / "r1_qwen_gpu.yaml", on_the_gpu[:1]), "zero", 0)
    assert max(adapters.memory_bytes["learner"], offloaded.memory_bytes["learner"]) < 60 * 2**30
    assert adapters.num_gpus == 8
    assert adapters.trained_tokens == 1000 * 32 * 16 * 8192
    assert plan_stage(loaded, "all_scenarios", 0).num_gpus == 8, "learner, six engines, one for all reward models"
    assert plan_stage(loaded, "helpful", 0).num_gpus == 1
    too_many = load_pipeline(
        RECIPES / "r1_qwen_gpu.yaml", ["stages.all_scenarios.recipe.reward.num_gpus_per_worker=0.02"]
    )
    with pytest.raises(RecipeError, match=r"stage all_scenarios: reward worker needs .*reward models"):
        plan_stage(too_many, "all_scenarios", 0)


def test_a_stage_whose_model_is_too_short_is_named() -> None:
    loaded = load_pipeline(RECIPES / "r1_zero_tiny_cpu.yaml", ["recipe.rollout.max_model_tokens=512"])
    with pytest.raises(RecipeError, match=r"stage pretrain: rollout\.max_model_tokens: 512 is more"):
        check_pipeline(loaded, Console(quiet=True), as_json=False)


def test_what_a_stage_asks_for_in_vain_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["dtype=float32", "stages.sft.optimizer={learning_rate: 1.0e-4, decay: constant, floor: 0.5}"]
    loaded = load_pipeline(RECIPES / "r1_tiny_cpu.yaml", overrides)
    assert plan_stage(loaded, "sft", 0).notes[0] == "optimizer.floor: 0.5 has no effect with decay: constant"
    assert not plan_stage(loaded, "rejection", 0).notes
    check_pipeline(loaded, Console(width=200), as_json=False)
    assert "note: sft: optimizer.floor: 0.5 has no effect" in capsys.readouterr().out


def test_decoding_is_bound_by_reading_or_by_computing() -> None:
    shape = ModelShape(
        hidden_size=64, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=64, intermediate_size=64, vocab_size=100,
        max_positions=128, tied_embeddings=True, attention_bias=False, qk_norm=False,
    )  # fmt: skip
    recipe = load_pipeline(RECIPES / "r1_zero_tiny_cpu.yaml", ["dtype=bfloat16"]).recipes["zero"]
    read = 2 * shape.num_parameters + 256 * 48 * 2 * 64 * 2  # bfloat16
    computed = 2 * shape.num_parameters * 256
    expected = 256 / max(read / 42e9, computed / 0.2e12) * 0.3
    assert decode_rate(shape, recipe, CPU) == pytest.approx(expected)
