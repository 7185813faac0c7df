"""Reward models on GPUs, by hand: weights in fp32, activations, contexts; refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.planning.memory_plan import CONTEXT_BYTES, GIB
from rayzero.services.run.plan import make_plan
from rayzero.services.run.reward_memory import plan_rewards
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.planning.test_memory_plan import LLAMA, LLAMA_PARAMETERS, SMALL, SMALL_PARAMETERS, recipe

MODEL = {"kind": "reward_model", "path": "stage:helpful", "tokens_per_batch": 1000}


def judged(share: float, **components: Any) -> Recipe:
    rubric = {"helpful": MODEL, **components}
    rubrics = {"default": rubric, "other": {"again": MODEL | {"weight": 0.5}}}
    return recipe(reward={"rubrics": rubrics, "num_workers": 2, "num_gpus_per_worker": share})


def test_parts_by_hand() -> None:
    (gpu,) = plan_rewards(judged(0.5), 79 * GIB, {"stage:helpful": SMALL})
    assert (gpu.role, gpu.count, gpu.capacity) == ("reward worker", 1, 79 * GIB)
    assert gpu.parts["reward models"] == 2 * 4 * SMALL_PARAMETERS, "two workers; the second rubric shares the model"
    assert gpu.parts["activations"] == 2 * 1000 * 4 * (6 * 896 + 3 * 4864)
    assert gpu.parts["CUDA"] == 2 * CONTEXT_BYTES
    (alone,) = plan_rewards(judged(1, harmless=MODEL | {"part": "whole"}), 79 * GIB, {"stage:helpful": LLAMA})
    assert alone.count == 2
    assert alone.parts["reward models"] == 2 * 4 * (LLAMA_PARAMETERS - 128256 * 4096), "no head over the vocabulary"


def test_a_model_is_read_where_it_lies_and_left_out_where_it_is_not(tmp_path: Path) -> None:
    (unknown,) = plan_rewards(judged(1), 79 * GIB, {})
    assert unknown.parts["reward models"] == 0
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "vocab_size": 10, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    there = recipe(reward={"rubrics": {"default": {"m": MODEL | {"path": str(tmp_path)}}}, "num_gpus_per_worker": 1})
    (gpu,) = plan_rewards(there, 79 * GIB, {})
    assert gpu.parts["reward models"] == 4 * (4 * 8 * 8 + 3 * 8 * 16 + 2 * 8 + 8 + 10 * 8)
    assert plan_rewards(recipe(), 79 * GIB, {}) == ()


def test_what_does_not_fit_is_refused_and_the_plan_shows_what_does() -> None:
    shapes = {"stage:helpful": LLAMA}
    with pytest.raises(RecipeError, match=r"reward worker needs .*reward models 11\d\.\d.*reward\.num_gpus_per_worker"):
        make_plan(judged(0.25), SMALL, 10, 10, 3, shapes)
    plan = make_plan(judged(1), SMALL, 10, 10, 4, shapes)
    (worker,) = [actor for actor in plan.actors if actor.role == "reward worker"]
    assert plan.memory is not None and plan.memory.gpus[-1].num_bytes == worker.memory_bytes
    assert (worker.count, worker.num_gpus) == (2, 1)
    (on_cpu,) = [actor for actor in make_plan(recipe(), SMALL, 10, 10, 2).actors if actor.role == "reward worker"]
    assert (on_cpu.num_gpus, on_cpu.memory_bytes) == (0, 200 * 2**20)
