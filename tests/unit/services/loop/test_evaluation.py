"""One pass over the held-out prompts: the same requests every time, errors neither for nor against."""

from __future__ import annotations

import math

import pytest

from rayzero.services.loop.evaluation import Evaluator, mean
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.messages import Sampling
from tests.fakes import make_prompt
from tests.unit.services.loop.kit import ScriptedRunner

NAN = float("nan")
SAMPLING = Sampling(num_completions=2, max_tokens=8, temperature=0.5, seed=100)


def evaluator(*workers: str, deterministic: bool = False) -> tuple[Evaluator, ScriptedRunner]:
    runner = ScriptedRunner(*workers)
    runner.ends = {-1: (1.0, 0.0), -2: (1.0, NAN)}
    return Evaluator(runner, [make_prompt(7), make_prompt(8)], SAMPLING, deterministic=deterministic), runner


async def test_an_error_counts_neither_for_nor_against() -> None:
    held_out, _ = evaluator()
    found = await held_out.run(3)
    assert (found.policy_version, found.accuracy, found.reward_mean, found.num_errors) == (3, 2 / 3, 2 / 3, 1)
    assert found.completion_tokens_mean == 3.0 and found.truncated_share == 0.0
    assert found.versions == (0, 0)


async def test_its_groups_go_before_those_that_wait_to_be_trained_on() -> None:
    held_out, runner = evaluator("a", "b")
    await held_out.run(3)
    assert sorted(runner.asked) == [(-2, "", True), (-1, "", True)]


async def test_a_synchronous_run_deals_them_out_by_position() -> None:
    held_out, runner = evaluator("a", "b", deterministic=True)
    await held_out.run(3)
    assert runner.asked == [(-1, "a", False), (-2, "b", False)]


def test_every_prompt_has_seeds_of_its_own_the_same_at_every_evaluation() -> None:
    held_out, _ = evaluator()
    first = [held_out._request(index, prompt) for index, prompt in enumerate(held_out.prompts)]
    assert [request.sampling.seed for request in first] == [100, 102]
    assert first == [held_out._request(index, prompt) for index, prompt in enumerate(held_out.prompts)]
    assert all(request.group_id < 0 for request in first), "they are not in the ledger"


async def test_without_one_verdict_there_is_no_accuracy_to_report() -> None:
    held_out, runner = evaluator()
    runner.ends = {-1: (NAN, NAN), -2: (NAN, NAN)}
    with pytest.raises(RunHalted, match="evaluation at version 3: every verdict is an error; the first:"):
        await held_out.run(3)


def test_the_mean_of_nothing_is_no_number() -> None:
    assert math.isnan(mean([])) and mean([1, 2]) == 1.5
