"""One pass over the held-out prompts: the same requests every time, errors for nothing, an error over prompts, greedy
answers besides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.evaluation import Evaluation, Evaluator, accuracy_of, best_version, mean
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.schema.config.training import EvaluationSettings
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.interfaces import RewardWorker, RolloutWorker
from rayzero.services.schema.messages import Group, GroupRequest, Rollout, Sampling
from tests.fakes import (
    Events,
    FakeRewardWorker,
    FakeRolloutWorker,
    make_completion,
    make_group,
    make_prompt,
    make_recipe,
    make_verdict,
)
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
    assert (found.policy_version, found.accuracy, found.reward_mean, found.num_errors) == (3, 0.75, 2 / 3, 1)
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
    first = [held_out._request(index, prompt, SAMPLING) for index, prompt in enumerate(held_out.prompts)]
    assert [request.sampling.seed for request in first] == [100, 102]
    assert first == [held_out._request(index, prompt, SAMPLING) for index, prompt in enumerate(held_out.prompts)]
    assert all(request.group_id < 0 for request in first), "they are not in the ledger"


async def test_without_one_verdict_there_is_no_accuracy_to_report() -> None:
    held_out, runner = evaluator()
    runner.ends = {-1: (NAN, NAN), -2: (NAN, NAN)}
    with pytest.raises(RunHalted, match="evaluation at version 3: every verdict is an error; the first:"):
        await held_out.run(3)


def test_the_mean_of_nothing_is_no_number() -> None:
    assert math.isnan(mean([])) and mean([1, 2]) == 1.5


def groups_of(rewards: list[list[float]]) -> list[Group]:
    made: dict[str, Rollout] = {}  # one a reward, by its text, for NaN equals nothing: tens of thousands are asked for

    def rollout(reward: float) -> Rollout:
        if str(reward) not in made:
            made[str(reward)] = Rollout(completion=make_completion(), verdict=make_verdict(reward))
        return made[str(reward)]

    return [
        replace(make_group(index), rollouts=tuple(rollout(reward) for reward in each))
        for index, each in enumerate(rewards)
    ]


@pytest.mark.parametrize("num_completions", [1, 4, 16])
def test_the_error_is_the_spread_of_repeated_evaluations(num_completions: int) -> None:
    """Completions of a prompt are alike: a thousand of one prompt say no more of the others."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(200):
        chances = rng.beta(0.3, 0.3, 64)
        right = rng.random((64, num_completions)) < chances[:, None]
        found = accuracy_of(groups_of(right.astype(float).tolist()))
        means.append(found.mean)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_a_verdict_that_is_an_error_is_no_observation() -> None:
    nan = float("nan")
    found = accuracy_of(groups_of([[1, nan, nan, nan], [0, 0, 0, 1], [nan] * 4, [1, 1, 0, 0]]))
    assert found.num_prompts == 3 and found.mean == pytest.approx((1 + 0.25 + 0.5) / 3)


async def evaluated(temperature: float, greedy: bool) -> tuple[Evaluation, list[GroupRequest]]:
    """Of four prompts, two completions each; the greedy answers are right, of the sampled ones every second."""
    events, asked = Events(), []
    engine = FakeRolloutWorker("engine", events)
    generate = engine.generate

    async def noted(request: GroupRequest):  # type: ignore[no-untyped-def]
        asked.append(request)
        made = await generate(request)
        texts = ["right"] if request.sampling.temperature == 0 else ["right", "wrong"]
        completions = [replace(c, text=texts[i % len(texts)]) for i, c in enumerate(made.completions)]
        return replace(made, completions=tuple(completions))

    engine.generate = noted  # type: ignore[method-assign]
    rewarder = FakeRewardWorker("reward", events, (0.0, 1.0))

    async def score(prompt, text, completions):  # type: ignore[no-untyped-def]
        return tuple(make_verdict(float(completion.text == "right")) for completion in completions)

    rewarder.score = score  # type: ignore[method-assign]

    async def spawn_engine(name: str) -> FakeRolloutWorker:
        return engine

    async def spawn_reward(name: str) -> FakeRewardWorker:
        return rewarder

    engines: Fleet[RolloutWorker] = Fleet("rollout", spawn_engine, limit=8)
    rewards: Fleet[RewardWorker] = Fleet("reward", spawn_reward, limit=8)
    await engines.start(1)
    await rewards.start(1)
    sampling = Sampling(num_completions=2, max_tokens=8, temperature=temperature, seed=100)
    evaluator = Evaluator(GroupRunner(engines, rewards, 1, 2.0), [make_prompt(index) for index in range(4)], sampling)
    return await evaluator.run(7, lambda version, accuracy: greedy), asked


async def test_greedy_answers_are_measured_besides() -> None:
    evaluation, asked = await evaluated(1.0, greedy=True)
    assert evaluation.figures() == {
        "accuracy": 0.5,
        "standard_error": 0.0,
        "pass_at_k": 1.0,
        "pass_at_k_standard_error": 0.0,
        "num_completions": 2,
        "greedy_accuracy": 1.0,
        "greedy_standard_error": 0.0,
    }
    samplings = [(request.sampling.temperature, request.sampling.num_completions) for request in asked]
    assert samplings == [(1.0, 2)] * 4 + [(0.0, 1)] * 4
    assert len(evaluation.groups) == len(evaluation.greedy_groups) == 4


async def test_nothing_is_paid_for_twice() -> None:
    evaluation, asked = await evaluated(0.0, greedy=True)
    assert len(asked) == 4 and evaluation.figures()["greedy_accuracy"] == evaluation.accuracy == 1.0
    evaluation, asked = await evaluated(1.0, greedy=False)
    assert len(asked) == 4 and evaluation.greedy is None and "greedy_accuracy" not in evaluation.figures()


def test_greedy_is_at_the_ends_unless_the_recipe_says_otherwise() -> None:
    recipe = make_recipe(num_updates=9)
    assert EvaluationSettings().greedy == "ends"
    for greedy, expected in (("ends", [0, 9]), ("always", list(range(10))), ("never", [])):
        changed = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"greedy": greedy})})
        assert [version for version in range(10) if changed.greedy_at(version)] == expected


def test_the_best_version_is_the_newest_of_equals() -> None:
    assert best_version({1: 0.5, 3: 0.75, 2: 0.75, 4: 0.1}) == 3
    assert best_version({}) is None


def test_a_run_that_reaches_its_goal_ends_with_both_accuracies() -> None:
    """Its last evaluation is one at an end: a greedy accuracy before it alone would say nothing of what was learnt."""
    recipe = make_recipe(num_updates=9)
    recipe = recipe.model_copy(update={"evaluation": EvaluationSettings()})
    goal = recipe.model_copy(update={"training": recipe.training.model_copy(update={"stop_at_accuracy": 0.8})})
    assert not goal.greedy_at(4, 0.7) and goal.greedy_at(4, 0.8) and not recipe.greedy_at(4, 0.8)
