"""Graphs: what needs what, and every bad graph refused with its line and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.pipeline.loading import check_servers, check_tokenizers, load_pipeline
from rayzero.services.schema.errors import RecipeError
from tests.unit.services.pipeline.kit import PIPELINE, refusal, write

DISTIL = """\
  distilled:
    kind: on_policy_distill
    model: small
    teacher: reasoning
    recipe: {training: {num_updates: 3, groups_per_update: 2, group_size: 2}}
"""


def test_stages_run_after_what_they_read_else_in_the_recipes_order(tmp_path: Path) -> None:
    graph = load_pipeline(write(tmp_path)).graph
    assert graph.order == ("cold", "reasoning", "sampled", "final", "measured")
    assert graph.inputs["final"] == ("base", "sampled")
    assert graph.inputs["measured"] == ("base", "cold", "final")
    assert graph.needed_for("sampled") == {"cold", "reasoning", "sampled"}
    assert graph.root_model("reasoning") == "base"


def test_a_stage_may_be_written_before_what_it_reads(tmp_path: Path) -> None:
    moved = PIPELINE.replace("  cold:\n", "  early: {kind: eval, models: [final]}\n  cold:\n")
    order = load_pipeline(write(tmp_path, moved)).graph.order
    assert order.index("early") > order.index("final")


def test_a_cycle_names_its_stages(tmp_path: Path) -> None:
    message = refusal(tmp_path, PIPELINE, "stages.cold.model=final")
    assert "cold → final → sampled → reasoning → cold" in message
    assert "start from something that is there before it" in message


def test_a_misspelt_input_gets_the_nearest_name_and_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, PIPELINE.replace("model: cold", "model: cald"))
    assert (
        "pipeline.yaml:16: stages.reasoning.model: there is no 'cald' that is a model; did you mean 'cold'?" in message
    )


def test_a_model_where_a_dataset_belongs_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, PIPELINE.replace("stage:sampled", "stage:cold"))
    assert "stages.final.data.0.path: stage 'cold' writes model, not a dataset; name one of: sampled" in message


def test_a_missing_dataset_stage_is_refused(tmp_path: Path) -> None:
    assert "there is no 'nothing' that is a dataset" in refusal(
        tmp_path, PIPELINE.replace("stage:sampled", "stage:nothing")
    )


def test_a_reward_model_is_an_input_like_any_other(tmp_path: Path) -> None:
    component = "stages.reasoning.recipe.reward.rubrics.default.helpful={kind: reward_model, path: 'stage:cold'}"
    message = refusal(tmp_path, PIPELINE, component)
    assert "stages.reasoning.recipe.reward.rubrics.default.helpful.path: stage 'cold' writes model" in message


def test_a_base_is_needed_and_names_are_not_used_twice(tmp_path: Path) -> None:
    assert "must be called 'base'" in refusal(tmp_path, PIPELINE.replace("base: BASE", "start: BASE"))
    assert "there is a stage of this name too" in refusal(tmp_path, PIPELINE, "models.cold=x")


def test_on_policy_distillation_needs_one_tokenizer(tmp_path: Path) -> None:
    text = PIPELINE.replace("base: BASE", f"base: BASE, small: {tmp_path}/small") + DISTIL
    loaded = load_pipeline(write(tmp_path, text))
    recipe = loaded.recipes["distilled"]
    assert recipe.learner.kl.reference == "reasoning" and recipe.learner.advantage == "none"
    (tmp_path / "small").mkdir()
    (tmp_path / "base" / "tokenizer.json").write_text("a")
    (tmp_path / "small" / "tokenizer.json").write_text("a")
    check_tokenizers(loaded, Path)
    (tmp_path / "small" / "tokenizer.json").write_text("another")
    with pytest.raises(RecipeError, match=r"stages\.distilled\.teacher: reasoning has the tokenizer of models\.base"):
        check_tokenizers(loaded, Path)


def test_a_judge_that_does_not_answer_is_named_before_anything_starts(tmp_path: Path) -> None:
    judged = "{kind: judge, base_url: 'http://127.0.0.1:9/v1', model: m}"
    judge = f"stages.reasoning.recipe.reward.rubrics.default.judged={judged}"
    loaded = load_pipeline(write(tmp_path), [judge])
    check_servers(loaded, ["cold", "sampled"])
    with pytest.raises(
        RecipeError, match=r"stage reasoning: reward\.rubrics\.default\.judged: nothing answers at http"
    ):
        check_servers(loaded, ["cold", "reasoning"])
