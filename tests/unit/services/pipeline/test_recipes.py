"""A stage's own recipe: what is laid over what, and what is refused in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.pipeline.loading import load_pipeline
from tests.unit.services.pipeline.kit import PIPELINE, refusal, write


def test_a_stages_own_recipe_is_checked_before_anything_starts(tmp_path: Path) -> None:
    message = refusal(tmp_path, PIPELINE.replace("group_size: 2", "group_sise: 2"))
    assert "stage reasoning: " in message and "training.group_sise: unknown key; did you mean 'group_size'?" in message
    assert "pipeline.yaml:17" in message


def test_keys_of_the_pipeline_are_refused_in_a_stages_recipe(tmp_path: Path) -> None:
    message = refusal(tmp_path, PIPELINE, "stages.reasoning.recipe.seed=3")
    assert "stages.reasoning.recipe.seed: not here: give the pipeline's `seed`" in message


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("training.num_updates=9", "give the stage's own keys, such as `num_updates`"),
        ("learner.optimizer.learning_rate=0.1", "give the stage's `optimizer` or `learning_rate`"),
        ("learner.kl.beta=0.1", "leave it out"),
        ("rollout.sampling.temperature=0.6", "leave it out"),
        ("checkpoint.every_updates=3", "give the stage's `checkpoint_every_updates`"),
        ("data.shuffle=false", "give the stage's own `data` or `pairs`"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(tmp_path: Path, key: str, fix: str) -> None:
    message = refusal(tmp_path, PIPELINE, f"stages.cold.recipe.{key}")
    assert f"stages.cold.recipe.{key.partition('=')[0]}: no stage of kind sft reads it: {fix}" in message


def test_keys_that_a_supervised_stage_reads_are_taken(tmp_path: Path) -> None:
    keys = ["rollout.prompt_template=chat", "learner={lora: {rank: 4}, kl: null}", "deadlines.update_s=9"]
    loaded = load_pipeline(write(tmp_path), [f"stages.cold.recipe.{key}" for key in keys])
    recipe = loaded.recipes["cold"]
    assert recipe.learner.lora is not None and recipe.deadlines.update_s == 9
    assert (recipe.learner.optimizer.decay, recipe.learner.optimizer.floor) == ("linear", 0.1)


def test_mappings_are_merged_and_null_removes(tmp_path: Path) -> None:
    overrides = [
        "stages.reasoning.recipe.reward.rubrics.default.format={kind: format, weight: 0.1}",
        "stages.measured.recipe.reward.rubrics.default.accuracy=null",
        "stages.measured.recipe.reward.rubrics.default.language={kind: language}",
    ]
    recipes = load_pipeline(write(tmp_path), overrides).recipes
    assert list(recipes["reasoning"].reward.rubrics["default"]) == ["accuracy", "format"]
    assert list(recipes["measured"].reward.rubrics["default"]) == ["language"]
    assert recipes["sampled"].rollout.sampling.max_tokens == 48
