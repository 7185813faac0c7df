"""Prompts that their rubric cannot judge are found before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from rayzero.services.run.answer_check import check_answers
from rayzero.services.schema.config.loader import validate_recipe
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt
from tests.fakes import make_recipe


def recipe(**component: Any) -> Recipe:
    content = make_recipe().model_dump(mode="json")
    content["reward"]["rubrics"] = {"default": {"r": component}}
    return validate_recipe(content, {}, default_origin="x.yaml")


def prompts(*answers: Any, **columns: Any) -> list[Prompt]:
    question = (ChatMessage(role="user", content="?"),)
    return [
        Prompt(prompt_id=f"train/{number}", messages=question, answer=answer, columns=columns)
        for number, answer in enumerate(answers, start=1)
    ]


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"kind": "math"}, {"value": "4"}, "train/1: the gold answer must be text, a number or a list of them, not dict"),
    ({"kind": "math"}, True, "not bool"),
    ({"kind": "code"}, "4", "the answer must be {language, tests}, or tests, not str"),
    ({"kind": "exact"}, {"a": 1}, "train/1: the gold answer must be a text, a number or a list"),
    ({"kind": "choice"}, "none of them", "the gold answer names no option"),
    ({"kind": "json_schema"}, "no json", "train/1: the schema is no JSON"),
    ({"kind": "regex"}, 4, "train/1: the gold answer must be a pattern"),
    ({"kind": "instructions"}, "x", "the instructions are no JSON"),
]


@pytest.mark.parametrize(("component", "answer", "sentence"), BAD)
def test_a_source_that_cannot_be_judged_is_refused(component: dict[str, Any], answer: Any, sentence: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check_answers(recipe(**component), prompts(answer, answer), lambda text: None)
    assert str(refused.value).startswith("reward.rubrics.default.r: ") and sentence in str(refused.value)
    assert "all of 2 prompts of source 'default'" in str(refused.value)


GOOD: list[tuple[dict[str, Any], Any]] = [
    ({"kind": "math"}, "4"),
    ({"kind": "math"}, ["4", 5]),
    ({"kind": "code"}, {"tests": [{"call": "f", "args": [], "expected": 1}]}),
    ({"kind": "exact"}, "Paris"),
    ({"kind": "choice"}, "B"),
    ({"kind": "json_schema"}, {"type": "object"}),
    ({"kind": "regex"}, "a+"),
    ({"kind": "instructions"}, [{"id": "change_case:english_lowercase"}]),
    ({"kind": "format"}, None),
    ({"kind": "custom", "function": "no.module:f"}, None),
]


@pytest.mark.parametrize(("component", "answer"), GOOD)
def test_what_can_be_judged_passes(component: dict[str, Any], answer: Any) -> None:
    said: list[str] = []
    check_answers(recipe(**component), prompts(answer), said.append)
    assert said == []


def test_some_that_cannot_are_counted() -> None:
    said: list[str] = []
    check_answers(recipe(kind="math"), prompts("4", {"value": 5}, {"value": 6}), said.append)
    assert len(said) == 1 and said[0].startswith("reward.rubrics.default.r: train/2: the gold answer must be text")
    assert said[0].endswith("2 of 3 prompts of source 'default' that were looked at")
