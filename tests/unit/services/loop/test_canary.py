"""The tokens that both sides score, and what comes of a difference."""

from __future__ import annotations

import numpy as np

from rayzero.services.loop.canary import MAX_TOKENS, Canary
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import Group, Rollout
from tests.fakes import Events, FakeLearner, FakeRolloutWorker, make_completion, make_prompt, make_recipe, make_verdict


def group(*lengths: int, prompt_tokens: int = 4) -> Group:
    rollouts = tuple(
        Rollout(completion=make_completion(num_tokens=length), verdict=make_verdict()) for length in lengths
    )
    return Group(
        group_id=0, prompt=make_prompt(0), prompt_token_ids=np.arange(prompt_tokens, dtype=np.int32), rollouts=rollouts
    )


def tokens(canary: Canary) -> int:
    assert canary._tokens is not None
    return len(canary._tokens[1])


def test_the_longest_completion_is_scored_as_far_as_it_pays() -> None:
    canary = Canary(every_syncs=1, max_difference=0.1)
    canary.learn([group(2, 7), group(5)])
    assert tokens(canary) == 7
    canary.learn([group(500)])
    assert tokens(canary) == MAX_TOKENS
    canary.learn([group(0, 1)])
    assert tokens(canary) == MAX_TOKENS, "nothing to learn from: the tokens before stay"


def test_an_engine_is_never_asked_for_more_than_it_takes() -> None:
    canary = Canary(every_syncs=1, max_difference=0.1, max_model_tokens=20)
    canary.learn([group(8, prompt_tokens=12)])
    assert tokens(canary) == 7


def test_the_limit_follows_the_precision() -> None:
    assert Canary.of(make_recipe()).max_difference == 0.25
    assert Canary.of(make_recipe()).is_due(20) and not Canary.of(make_recipe()).is_due(21)


async def test_workers_are_tried_beside_each_other_and_judged_alone() -> None:
    events = Events()
    good, wrong, dead = (FakeRolloutWorker(name, events) for name in ("good", "wrong", "dead"))
    wrong.wrong_by, dead.dead = 0.4, True
    canary = Canary(every_syncs=1, max_difference=0.1)
    assert await canary.try_all(FakeLearner(events), [good]) == [None], "nothing to score yet"
    canary.learn([group(3)])
    results = await canary.try_all(FakeLearner(events), [good, wrong, dead])
    assert results[0] is None
    assert "wrong scores the canary's 3 tokens 0.4 nats a token away from the learner (limit 0.1)" in str(results[1])
    assert isinstance(results[2], WorkerError)
