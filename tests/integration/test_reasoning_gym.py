"""The real package; apart from the unit tests because importing it takes seconds."""

from __future__ import annotations

import json

import pytest

from rayzero.rewards.base import Case, Context
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.data.sources.registry import read_rows
from rayzero.services.data.sources.rows import to_prompt
from rayzero.services.schema.config.data import ReasoningGymSource
from rayzero.services.schema.config.reward_components import ReasoningGymComponent
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import VerdictStatus
from tests.system import needs
from tests.unit.rewards.cases import case

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


async def test_the_tasks_own_score_decides() -> None:
    settings = ReasoningGymSource(task="countdown", num_prompts=1, seed=1)
    row = read_rows(settings)[0]
    prompt = to_prompt(row, settings, "p")
    entry = json.loads(prompt.columns["reasoning_gym_entry"])
    reward = build_reward(ReasoningGymComponent(), Capacity(num_children=1))
    try:
        texts = [f"\\boxed{{{entry['answer']}}}", "\\boxed{1}", entry["answer"]]
        scores = await reward.score([Case(prompt=prompt, text=text) for text in texts], Context())
        stranger = await reward.score([case("\\boxed{1}")], Context())
    finally:
        await reward.close()
    assert [score.status for score in scores] == [VerdictStatus.CORRECT, VerdictStatus.WRONG, VerdictStatus.WRONG]
    assert "no \\boxed" in scores[2].reason
    assert stranger[0].cause == "bad-prompt"
