"""Sources and the rubrics that can judge them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rayzero.services.pipeline.loading import load_pipeline
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError

RECIPES = Path("deploy/recipes")


def recipe(task: str, **rubrics: Any) -> Recipe:
    return Recipe.model_validate({
        "name": "fit",
        "model": {"path": "fake"},
        "data": {"train": [{"kind": "reasoning_gym", "name": "puzzles", "task": task}]},
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}, **rubrics}},
        "training": {"num_updates": 1, "groups_per_update": 1, "group_size": 2},
    })  # fmt: skip


@pytest.mark.parametrize("task", ["countdown", "puzzle24", "sudoku", "prime_factorization", "jugs"])
def test_a_puzzle_is_not_judged_by_its_one_gold(task: str) -> None:
    for kind in ("math", "exact"):
        with pytest.raises(ValueError, match=r"puzzles: \{accuracy: \{kind: reasoning_gym\}\}"):
            recipe(task, puzzles={"accuracy": {"kind": kind}})
    recipe(task, puzzles={"accuracy": {"kind": "reasoning_gym"}})


def test_a_task_with_one_number_is() -> None:
    recipe("chain_sum")
    recipe("gsm_symbolic")


def test_the_shipped_pipeline_judges_its_puzzles_by_their_own_score(tmp_path: Path) -> None:
    """A copied target number is no solution of a countdown puzzle: the pipeline that says it is, is refused."""
    loaded = load_pipeline(RECIPES / "r1_qwen_gpu.yaml", [])
    for stage in ("zero", "reasoning", "rejection", "teach", "small_zero"):
        rubric = loaded.recipes[stage].reward.rubric_for("puzzles")
        assert rubric is not None and rubric["accuracy"].kind == "reasoning_gym"
        assert rubric["language"].weight == loaded.recipes[stage].reward.rubrics["default"]["language"].weight
    content = yaml.safe_load((RECIPES / "r1_qwen_gpu.yaml").read_text(encoding="utf-8"))
    del content["recipe"]["reward"]["rubrics"]["puzzles"], content["stages"]["reasoning"]["recipe"]["reward"]
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"stage zero.*countdown"):
        load_pipeline(file, [])
