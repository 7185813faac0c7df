"""Recipes: every mistake named with its key, its line and its fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.pipeline.loading import is_pipeline, load_pipeline
from rayzero.services.schema.config.loader import load_recipe
from rayzero.services.schema.errors import RecipeError

GOOD = """\
name: small
model:
  path: smollm2-135m-instruct
data:
  train:
    - kind: jsonl
      path: prompts.jsonl
reward:
  rubrics:
    default:
      accuracy: {kind: math}
training:
  num_updates: 5
  groups_per_update: 2
  group_size: 4
"""


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str = GOOD, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_good_recipe_is_frozen_and_complete(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert recipe.training.samples_per_update == 8
    assert recipe.learner.loss.name == "grpo"
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]


def test_overrides_are_yaml_values_at_dotted_keys(tmp_path: Path) -> None:
    overrides = [
        "learner.optimizer.learning_rate=2e-5",
        "data.train.0.path=other.jsonl",
        "rollout.sampling.max_tokens=12",
    ]
    recipe = load_recipe(write(tmp_path), overrides)
    assert recipe.learner.optimizer.learning_rate == 2e-5
    assert recipe.data.train[0].path == "other.jsonl"  # type: ignore[union-attr]
    assert recipe.rollout.sampling.max_tokens == 12


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("num_updates", "num_update", ["recipe.yaml:13", "training.num_update", "did you mean 'num_updates'"]),
        ("group_size: 4", "group_size: 1", ["recipe.yaml:15", "training.group_size", "greater than or equal to 2"]),
        ("kind: jsonl", "kind: json", ["data.train.0", "recipe.yaml:6", "jsonl"]),
        ("      path: prompts.jsonl", "      pth: prompts.jsonl", ["recipe.yaml:7", "pth", "did you mean 'path'"]),
        ("name: small", "nmae: small", ["nmae", "did you mean 'name'"]),
        ("  num_updates: 5\n", "", ["training.num_updates", "missing"]),
        ("kind: math", "kind: math, weigth: 2", ["recipe.yaml:11", "weigth", "did you mean 'weight'"]),
    ],
)
def test_mistakes_name_the_line_the_key_and_the_fix(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    message = refusal(tmp_path, GOOD.replace(old, new))
    for part in expected:
        assert part in message


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, GOOD.replace("group_size: 4", "group_size: 1").replace("num_updates: 5", "num_updates: 0")
    )
    assert "recipe.yaml:15" in message and "recipe.yaml:13" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "rollout.expert_parallel_size=8",
            "there is no expert parallelism: experts are dealt out like all other weights",
        ),
        ("learner.router_aux_loss_coef=0.001", "there is no load-balancing loss"),
    ],
)
def test_what_others_have_and_this_recipe_has_not_is_refused_with_the_reason(
    override: str, words: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, GOOD, override)
    assert f"{override.partition('=')[0]}: {words}" in message and "did you mean" not in message


def test_a_wrong_override_is_named_as_such(tmp_path: Path) -> None:
    assert "override 'training.group_size=1'" in refusal(tmp_path, GOOD, "training.group_size=1")
    assert "did you mean 'learning_rate'" in refusal(tmp_path, GOOD, "learner.optimizer.learning_rte=1")
    assert "dotted.key=value" in refusal(tmp_path, GOOD, "training")
    assert "not a section" in refusal(tmp_path, GOOD, "name.first=x")
    assert "not an item of the list" in refusal(tmp_path, GOOD, "data.train.7.path=x")


@pytest.mark.parametrize(
    ("old", "new", "override", "expected"),
    [
        ("{kind: math}", "{kind: maths}", "",
         "recipe.yaml:11: reward.rubrics.default.accuracy.kind: unknown 'maths'; did you mean 'math'? choose of "),
        ("{kind: math}", "{weight: 2}", "",
         "recipe.yaml:11: reward.rubrics.default.accuracy.kind: missing; add it, choose of math, "),
        ("", "", "learner.loss.name=grpoo",
         "override 'learner.loss.name=grpoo': learner.loss.name: unknown 'grpoo'; did you mean 'grpo'? choose of "),
        ("", "", "reward.rubrics.default.own.kind=qqq",
         "override 'reward.rubrics.default.own.kind=qqq': reward.rubrics.default.own.kind: unknown 'qqq'; choose of "),
    ],
)  # fmt: skip
def test_an_unknown_kind_is_named_with_those_that_there_are(
    tmp_path: Path, old: str, new: str, override: str, expected: str
) -> None:
    text = GOOD.replace(old, new) if old else GOOD
    assert expected in refusal(tmp_path, text, *([override] if override else []))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "recipe.yaml:16: name is given twice" in refusal(tmp_path, GOOD + "name: again\n")


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    assert "recipe.yaml:17" in refusal(tmp_path, GOOD + "x: [1\ny: 2\n")


def test_a_missing_file_suggests_a_near_one(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(RecipeError, match=r"did you mean .*recipe\.yaml"):
        load_recipe(tmp_path / "recpie.yaml")


def test_a_source_without_a_rubric_is_refused(tmp_path: Path) -> None:
    assert "'default' has no rubric" in refusal(tmp_path, GOOD.replace("    default:", "    gsm8k:"))


def test_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    import yaml

    recipe = load_recipe(write(tmp_path))
    again = load_recipe(write(tmp_path, yaml.safe_dump(recipe.model_dump(mode="json"))))
    assert again == recipe


@pytest.mark.parametrize("path", sorted(Path("deploy/recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_loads(path: Path) -> None:
    if is_pipeline(path):
        assert load_pipeline(path).pipeline.name in path.stem.replace("_", "-")
    else:
        assert load_recipe(path).name == path.stem.replace("_", "-")


def test_a_pipeline_is_not_the_recipe_of_one_run() -> None:
    with pytest.raises(RecipeError, match=r"yaml is a pipeline: rayzero pipeline run deploy/recipes/r1_tiny"):
        load_recipe("deploy/recipes/r1_tiny_cpu.yaml")


@pytest.mark.parametrize("was, now", [("services.tasks", "numbers"), ("services.tasks_words", "words")])
def test_a_function_that_has_moved_is_refused_with_its_new_name(tmp_path: Path, was: str, now: str) -> None:
    source = GOOD.replace(
        "    - kind: jsonl\n      path: prompts.jsonl", f"    - {{kind: function, function: '{was}:rows'}}"
    )
    assert f"{was}:rows is rayzero.services.data.tasks.{now}:rows now" in refusal(tmp_path, source)
    reward = GOOD.replace("{kind: math}", f"{{kind: custom, function: '{was}:rows'}}")
    assert f"{was}:rows is rayzero.services.data.tasks.{now}:rows now" in refusal(tmp_path, reward)


def test_what_cuts_the_distribution_is_measured_with_and_not_trained_on(tmp_path: Path) -> None:
    for name in ("top_p", "top_k", "min_p"):
        said = refusal(tmp_path, GOOD, f"rollout.sampling.{name}=1")
        assert f"rollout.sampling: {name}: not for training" in said and f"evaluation.{name}" in said
    assert "repetition_penalty: not for training" in refusal(tmp_path, GOOD, "rollout.sampling.repetition_penalty=1.1")
    changes = ["evaluation.top_p=0.9", "evaluation.top_k=20", "rollout.sampling.stop=['###']"]
    recipe = load_recipe(write(tmp_path), changes)
    evaluated, trained = recipe.evaluation_sampling, recipe.training_sampling(0)
    assert (evaluated.top_p, evaluated.top_k, trained.top_p, trained.top_k) == (0.9, 20, 1.0, 0)
    assert evaluated.stop == trained.stop == ("###",)
