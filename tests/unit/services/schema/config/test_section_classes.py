"""An unknown key is answered with the names of the variant that was given, not of all."""

from __future__ import annotations

import pytest

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.section_classes import classes_at, hint, is_field

RUBRIC = ("reward", "rubrics", "default", "accuracy")


def test_a_tag_says_which_variant_is_meant() -> None:
    assert len(classes_at(RUBRIC, Recipe)) > 10
    assert [model.__name__ for model in classes_at((*RUBRIC, "math"), Recipe)] == ["MathComponent"]
    rules = classes_at((*RUBRIC, "math", "rules"), Recipe)
    assert [model.__name__ for model in rules] == ["MathSettings"]


@pytest.mark.parametrize("name", ["math", "rules", "format", "code"])
def test_names_of_rubrics_and_components_are_no_tags(name: str) -> None:
    found = classes_at(("reward", "rubrics", name, name, "math"), Recipe)
    assert [model.__name__ for model in found] == ["MathComponent"]


def test_the_nearest_name_is_looked_for_here_and_one_section_down() -> None:
    assert hint((*RUBRIC, "math", "fallback"), Recipe).startswith("did you mean 'rules.fallbacks'? keys of math: ")
    assert hint((*RUBRIC, "math", "weigth"), Recipe).startswith("did you mean 'weight'? keys of math: ")
    nothing = hint((*RUBRIC, "math", "zzz"), Recipe)
    assert nothing.startswith("keys of math: ") and "rules" in nothing and "sandbox" not in nothing
    assert hint(("training", "num_update"), Recipe) == "did you mean 'num_updates'?"
    assert hint(("learner", "learning_rate"), Recipe) == "did you mean 'optimizer.learning_rate'?"
    assert hint(("training", "zzz"), Recipe).startswith("known keys here: ")


def test_a_list_s_items_are_sections() -> None:
    assert is_field(("data", "train", 0), "columns", Recipe) and not is_field(("data", "train", 0), "zzz", Recipe)
