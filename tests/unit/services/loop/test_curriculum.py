"""Which prompts have their turn: solved ones are skipped, hopeless ones deferred, none is lost for ever."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from rayzero.services.data.stream import MixPart, PromptMix, PromptStream
from rayzero.services.loop.checkpointer import state_of
from rayzero.services.loop.curriculum import Curriculum
from rayzero.services.schema.config.data import CurriculumSettings
from rayzero.services.schema.messages import Group, Prompt
from tests.fakes import FakeRewardWorker, make_group, make_prompt
from tests.unit.services.loop.test_controller import Run


def curriculum(num_prompts: int, shuffle: bool = False, **settings: Any) -> Curriculum:
    prompts = tuple(make_prompt(index) for index in range(num_prompts))
    stream = PromptStream(PromptMix(parts=(MixPart(weight=1.0, prompts=prompts),)), seed=1, shuffle=shuffle)
    return Curriculum(stream, num_prompts, CurriculumSettings(**settings))


def judged(group_id: int, prompt: Prompt, *rewards: float) -> Group:
    return replace(make_group(group_id, rewards=rewards), prompt=prompt)


def take(source: Curriculum, count: int) -> list[int]:
    return [int(source.next().prompt_id.removeprefix("train/")) for _ in range(count)]


def test_a_solved_prompt_is_passed_over_for_its_epochs_and_looked_at_again() -> None:
    source = curriculum(3, skip_epochs=2)
    source.learn(judged(0, source.next(), 1.0, 1.0))
    assert take(source, 8) == [1, 2, 1, 2, 1, 2, 0, 1]
    assert source.counts() == {"solved": 2}


def test_a_hopeless_prompt_is_deferred_and_one_that_teaches_keeps_its_turns() -> None:
    source = curriculum(3, defer_epochs=1)
    source.learn(judged(0, source.next(), 0.0, 0.0))
    source.learn(judged(1, source.next(), 0.0, 1.0))
    assert take(source, 6) == [2, 1, 2, 0, 1, 2]
    assert source.counts() == {"hopeless": 1}


def test_the_pass_rate_is_a_mean_in_which_the_newest_group_has_its_share_and_errors_have_none() -> None:
    source = curriculum(1, newest_share=0.5, skip_above=0.9)
    prompt = source.next()
    for number, rewards in enumerate([(0.0, 1.0), (1.0, 1.0), (1.0, 1.0, float("nan")), (float("nan"),)]):
        source.learn(judged(number, prompt, *rewards))
    source.next()
    assert source.state_dict()["rates"] == {"train/0": 0.875}
    source.learn(judged(9, prompt, 1.0))
    source.next()
    assert source.state_dict()["rates"] == {"train/0": 0.9375} and source.counts() == {"solved": 1}


def test_where_all_are_passed_over_the_one_seen_longest_ago_is_taken() -> None:
    source = curriculum(4, skip_epochs=100)
    for number in range(4):
        source.learn(judged(number, source.next(), 1.0))
    assert take(source, 6) == [0, 1, 2, 3, 0, 1]


def test_the_order_in_which_groups_of_a_wave_finish_changes_nothing() -> None:
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        source = curriculum(2, skip_above=0.7)
        prompt = source.next()
        groups = [judged(0, prompt, 1.0, 1.0), judged(1, prompt, 0.0, 1.0), judged(2, prompt, 1.0, 0.0)]
        for index in order:
            source.learn(groups[index])
        source.next()
        found.append(source.state_dict())
    assert found[0] == found[1]


@pytest.mark.parametrize("cut", [1, 17, 63])
def test_a_resumed_curriculum_goes_on_as_the_old_one_would_have(cut: int) -> None:
    def go(source: Curriculum, first: int, last: int) -> list[str]:
        given = []
        for number in range(first, last):
            prompt = source.next()
            given.append(prompt.prompt_id)
            chance = random.Random(number)
            skill = int(prompt.prompt_id.removeprefix("train/")) / 8
            source.learn(judged(number, prompt, *(float(chance.random() < skill) for _ in range(4))))
        return given

    whole = curriculum(9, shuffle=True)
    expected = go(whole, 0, 120)
    source = curriculum(9, shuffle=True)
    head = go(source, 0, cut)
    resumed = curriculum(9, shuffle=True)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert head + go(resumed, cut, 120) == expected
    assert resumed.state_dict() == whole.state_dict()
    often = Counter(expected)
    assert often["train/4"] > 1.5 * often["train/8"] and often["train/0"] > 3, "seldom, and never lost"


async def test_a_run_learns_from_its_groups_dropped_ones_too_and_saves_what_it_learnt() -> None:
    run = Run(num_updates=1, skip_uniform_groups=True)
    source = curriculum(4)
    run.controller.prompts = run.controller._admission.prompts = source
    await run.start()
    worker = run.rewarders.slots[0].worker
    assert isinstance(worker, FakeRewardWorker)
    original, of_first = worker.score, {"train/0": [1.0], "train/2": [0.0]}

    async def score(prompt: Prompt, *args: Any) -> Any:
        worker.rewards = of_first.get(prompt.prompt_id, [0.0, 1.0])
        return await original(prompt, *args)

    worker.score = score  # type: ignore[method-assign,assignment]
    async with asyncio.timeout(20):
        await run.controller.run()
    source.next()
    saved = state_of(run.controller)["prompts"]
    assert saved["rates"] == {"train/0": 1.0, "train/1": 0.5, "train/2": 0.0, "train/3": 0.5}
    assert set(saved["turns_left"]) >= {"train/0", "train/2"}
