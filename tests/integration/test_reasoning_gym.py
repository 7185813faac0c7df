"""The real package; apart from the unit tests because importing it takes seconds."""

from __future__ import annotations

import json

import pytest

from services.schema.config.data import ReasoningGymSource
from services.schema.errors import RecipeError
from services.sources.registry import read_rows
from services.sources.rows import to_prompt
from tests.system import needs

pytestmark = needs("reasoning_gym", "pycosat")


def test_questions_are_the_same_for_the_same_seed() -> None:
    settings = ReasoningGymSource(task="chain_sum", num_prompts=3, seed=5)
    rows = read_rows(settings)
    assert rows == read_rows(settings)
    assert len(rows) == 3
    made = to_prompt(rows[0], settings, "p")
    assert made.messages[0].content.endswith("Put your final answer in \\boxed{}.")
    assert made.columns["reasoning_gym_task"] == "chain_sum"
    assert json.loads(made.columns["reasoning_gym_entry"])["answer"] == made.answer


def test_a_misspelt_task_or_parameter_is_named() -> None:
    with pytest.raises(RecipeError, match="did you mean chain_sum"):
        read_rows(ReasoningGymSource(task="chainsum"))
    with pytest.raises(RecipeError, match="min_digit"):
        read_rows(ReasoningGymSource(task="chain_sum", parameters={"min_digit": 1}))
