"""The tokens that both sides score, and what comes of a difference."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rayzero.services.loop.canary import MAX_COMPLETIONS, MAX_TOKENS, Canary, check_kl
from rayzero.services.schema.config.learner import WatchSettings
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import Group, Rollout
from rayzero.services.schema.recent_kl import RecentKl
from tests.fakes import Events, FakeLearner, FakeRolloutWorker, make_completion, make_prompt, make_recipe, make_verdict
from tests.unit.services.loop.kit import make_episode


def group(*lengths: int, prompt_tokens: int = 4) -> Group:
    rollouts = tuple(
        Rollout(completion=make_completion(num_tokens=length), verdict=make_verdict()) for length in lengths
    )
    return Group(
        group_id=0, prompt=make_prompt(0), prompt_token_ids=np.arange(prompt_tokens, dtype=np.int32), rollouts=rollouts
    )


def tokens(canary: Canary) -> list[int]:
    return [len(completion) for _, completion in canary._samples]


def test_the_longest_completions_are_scored_as_far_as_it_pays() -> None:
    canary = Canary(every_syncs=1, max_difference=0.1)
    canary.learn([group(2, 7), group(5, 1)])
    assert tokens(canary) == [7, 5, 2]
    canary.learn([group(*[500] * 20)])
    assert tokens(canary) == [MAX_TOKENS] * MAX_COMPLETIONS and canary.num_tokens == 512
    never_looked_at = replace(group(500), rollouts=None)  # type: ignore[arg-type]
    canary.learn([group(7, 99), group(*[70] * 8), never_looked_at])
    assert tokens(canary) == [MAX_TOKENS] * MAX_COMPLETIONS
    canary.learn([group(0, 1)])
    assert canary.num_tokens == 512, "nothing to learn from: the tokens before stay"


def test_of_an_episode_the_first_turn_is_scored() -> None:
    canary = Canary(every_syncs=1, max_difference=0.1)
    plain = group(2)
    episodes = (make_episode("SSSOOSSS"), make_episode("OSS"), make_episode("SSSS"))
    rollouts = tuple(Rollout(completion=each, verdict=make_verdict()) for each in episodes)
    canary.learn([plain, replace(plain, rollouts=rollouts)])
    assert tokens(canary) == [4, 3, 2]


def test_an_engine_is_never_asked_for_more_than_it_takes() -> None:
    canary = Canary(every_syncs=1, max_difference=0.1, max_model_tokens=20)
    canary.learn([group(8, prompt_tokens=12)])
    assert tokens(canary) == [7]


def test_the_limit_follows_the_precision() -> None:
    assert Canary.of(make_recipe()).max_difference == 0.25
    assert Canary.of(make_recipe()).is_due(20) and not Canary.of(make_recipe()).is_due(21)


async def test_workers_are_tried_beside_each_other_and_judged_alone() -> None:
    events = Events()
    good, wrong, dead = (FakeRolloutWorker(name, events) for name in ("good", "wrong", "dead"))
    wrong.wrong_by, dead.dead = 0.4, True
    canary = Canary(every_syncs=1, max_difference=0.1)
    assert (await canary.try_all(FakeLearner(events), [good]))[0] == [None], "nothing to score yet"
    canary.learn([group(3)])
    results, kl = await canary.try_all(FakeLearner(events), [good, wrong, dead])
    assert kl == 0, "of those that passed"
    assert results[0] is None
    assert "wrong scores the canary's 3 tokens 0.4 nats a token away from the learner (limit 0.1)" in str(results[1])
    assert isinstance(results[2], WorkerError)


async def test_the_kl_of_one_engine_is_hand_computed() -> None:
    events = Events()
    worker, dead = FakeRolloutWorker("engine", events), FakeRolloutWorker("dead", events)
    worker.wrong_by, dead.dead = 0.1, True  # the learner's log-probability is .1 less: e^-.1 - 1 + .1
    canary = Canary(every_syncs=10, max_difference=0.25, always=True)
    assert math.isnan(await canary.compare(FakeLearner(events), worker)), "nothing to score yet"
    canary.learn([group(3)])
    assert await canary.compare(FakeLearner(events), worker) == pytest.approx(0.0048374, abs=1e-6)
    assert math.isnan(await canary.compare(FakeLearner(events), dead))
    worker.wrong_by = math.nan
    broken = await canary.compare(FakeLearner(events), worker)
    assert "kl_canary is" in str(check_kl(broken, 512, RecentKl(), WatchSettings(), "bfloat16")[1])


def test_the_limits_of_the_watch_hold_for_it() -> None:
    limits = WatchSettings()
    recent = RecentKl()
    assert check_kl(math.nan, 0, recent, limits, "bfloat16") == ([], None)
    assert check_kl(1e-3, 512, recent, limits, "bfloat16") == ([], None)
    warnings, halt = check_kl(1e-2, 512, recent, limits, "bfloat16")
    assert "kl_canary is 0.01 nats a token, over 0.005" in warnings[0] and halt is None
    assert "over 0.02" in str(check_kl(3e-2, 512, recent, limits, "bfloat16")[1])


def test_short_completions_stop_a_run_as_well() -> None:
    """Eight completions of nine tokens are too few at a time, and the limit would never be reached: seven and a bit
    comparisons are enough."""
    limits, recent = WatchSettings(), RecentKl()
    halts = [check_kl(3e-2, 72, recent, limits, "bfloat16")[1] for _ in range(8)]
    assert halts[:7] == [None] * 7
    assert "kl_canary is 0.03 nats a token, over 0.02" in str(halts[7])
