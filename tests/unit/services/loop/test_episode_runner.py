"""A group as episodes: side by side at one engine, tried elsewhere when an environment fails; none lost or doubled."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from rayzero.rewards.kinds.environment import EnvironmentReward
from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.episode_runner import EpisodeRunner
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.environment import EpisodeSettings
from rayzero.services.schema.config.reward_components import EnvironmentComponent
from rayzero.services.schema.episodes import EpisodeEnd
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import GroupBatch, GroupRequest, Sampling
from tests.fakes import Events, FakeRewardWorker, make_prompt
from tests.fakes_episodes import FakeEngine, FakeEnvironmentWorker, in_turn, said

REQUEST = GroupRequest(
    group_id=5, prompt=make_prompt(5), sampling=Sampling(num_completions=4, max_tokens=8, temperature=1.0, seed=40)
)


class Workers:
    """Two engines, two environment workers, a reward worker, and the runner between them."""

    def __init__(self, **settings: Any) -> None:
        self.events = Events()
        self.engines: dict[str, FakeEngine] = {}
        self.players: dict[str, FakeEnvironmentWorker] = {}
        self.rollouts: Fleet[Any] = Fleet("rollout", self._engine, limit=4, backoff_s=0.0)
        self.rewards: Fleet[Any] = Fleet("reward", self._judge, limit=4, backoff_s=0.0)
        self.environments: Fleet[Any] = Fleet("environment", self._player, limit=8, backoff_s=0.0)
        episodes = EpisodeRunner(self.environments, EpisodeSettings(**settings), 2, 2.0)
        self.runner = GroupRunner(self.rollouts, self.rewards, 2, 2.0, episodes)

    async def _engine(self, name: str) -> FakeEngine:
        self.engines[name] = engine = FakeEngine(name, self.events, in_turn(said("a"), said("b")))
        engine.version = 3
        return engine

    async def _judge(self, name: str) -> FakeRewardWorker:
        return FakeRewardWorker(name, self.events)

    async def _player(self, name: str) -> FakeEnvironmentWorker:
        self.players[name] = player = FakeEnvironmentWorker(name, self.events)
        return player

    async def start(self) -> Workers:
        await asyncio.gather(self.rollouts.start(2), self.rewards.start(1), self.environments.start(2))
        return self

    @property
    def asked(self) -> list[Any]:
        """Every session that was opened, at either engine."""
        return [request for engine in self.engines.values() for request in engine.spoken.requests]


async def test_a_group_is_so_many_episodes_at_one_engine() -> None:
    workers = await Workers(limits={"turn_tokens": 5}).start()
    group = await workers.runner.run(REQUEST)
    assert [rollout.completion.end for rollout in group.rollouts] == [EpisodeEnd.ANSWERED] * 4
    assert [rollout.verdict.reward for rollout in group.rollouts] == [0.0, 1.0, 0.0, 1.0]
    assert group.worker == "rollout-0" and group.oldest_version == 3
    assert [request.index for request in workers.asked] == [0, 1, 2, 3]
    assert [request.sampling.seed for request in workers.asked] == [40, 41, 42, 43], "each samples for itself"
    assert {request.environment_seed for request in workers.asked} == {40}, "and all begin alike"
    assert {request.sampling.max_tokens for request in workers.asked} == {5}
    assert {event.partition(".")[0] for event in workers.events if ".run" in event} == {
        "environment-0", "environment-1",
    }  # fmt: skip
    assert not any(engine.spoken.open for engine in workers.engines.values())


async def test_a_wave_has_all_episodes_of_its_batch_and_is_dealt_by_position() -> None:
    workers = await Workers().start()
    request = replace(REQUEST, batch=GroupBatch(batch_id="wave at rollout-1", size=3))
    await workers.runner.run(request, worker="rollout-1")
    assert {request.wave for request in workers.asked} == {GroupBatch(batch_id="wave at rollout-1", size=12)}
    runs = [event for event in workers.events if ".run" in event]
    assert sorted(runs) == [
        "environment-0.run 5.0", "environment-0.run 5.2", "environment-1.run 5.1", "environment-1.run 5.3",
    ]  # fmt: skip


async def test_an_environment_worker_that_dies_costs_one_episode_an_attempt() -> None:
    workers = await Workers().start()
    workers.players["environment-1"].failures = [WorkerError("killed")]
    request = replace(REQUEST, batch=GroupBatch(batch_id="wave at rollout-0", size=1))
    group = await workers.runner.run(request, worker="rollout-0")
    assert len(group.rollouts) == 4 and len(workers.asked) == 4
    assert sum(request.wave is None for request in workers.asked) == 1, "the others do not wait for it"
    assert workers.environments.restarts == 1 and workers.rollouts.restarts == 0


async def test_an_engine_that_dies_costs_the_group_an_attempt_and_no_environment_worker() -> None:
    workers = await Workers().start()
    workers.engines["rollout-0"].failures["turn"] = WorkerError("out of memory")
    group = await workers.runner.run(REQUEST, worker="rollout-0")
    assert group.worker == "rollout-1" and len(group.rollouts) == 4
    assert workers.rollouts.restarts == 1 and workers.environments.restarts == 0


async def test_a_broken_environment_is_tried_again_and_then_an_error() -> None:
    workers = await Workers().start()
    for player in workers.players.values():
        player.broken = 1
    group = await workers.runner.run(REQUEST)
    assert [rollout.completion.end for rollout in group.rollouts] == [EpisodeEnd.ANSWERED] * 4

    for player in workers.players.values():
        player.broken = 100
    group = await workers.runner.run(REQUEST)
    assert {rollout.verdict.cause for rollout in group.rollouts} == {ErrorCause.ENVIRONMENT}
    assert {rollout.verdict.reason for rollout in group.rollouts} == {"it broke"}
    assert all(math.isnan(rollout.verdict.reward) for rollout in group.rollouts)
    assert workers.environments.restarts == 0, "the workers are well"
    assert not any(engine.spoken.open for engine in workers.engines.values())


@pytest.mark.parametrize("policy", ["keep", "zero", "drop"])
async def test_what_a_limit_ended_is_worth_what_the_recipe_says(policy: str) -> None:
    workers = await Workers(truncated=policy).start()
    workers.players["environment-1"].end = EpisodeEnd.MAX_TURNS
    group = await workers.runner.run(replace(REQUEST, batch=GroupBatch(batch_id="w", size=1)), worker="rollout-0")
    verdicts = [rollout.verdict for rollout in group.rollouts]
    if policy == "keep":
        assert [verdict.reward for verdict in verdicts] == [0.0, 1.0, 0.0, 1.0]
    elif policy == "zero":
        assert [verdict.reward for verdict in verdicts] == [0.0, 0.0, 1.0, 0.0], "the rubric judges the others alone"
        assert verdicts[1].reason == "truncated, max_turns"
    else:
        assert [verdict.cause for verdict in verdicts] == [None, ErrorCause.TRUNCATED, None, ErrorCause.TRUNCATED]


def test_the_environments_own_reward_is_a_component() -> None:
    from rayzero.rewards.base import Case
    from rayzero.services.schema.episodes import EpisodeOutcome

    reward = EnvironmentReward(EnvironmentComponent(full_score=0.5))

    def judged(outcome: EpisodeOutcome | None) -> tuple[float | None, ErrorCause | None]:
        score = reward.judge(Case(prompt=make_prompt(0), text="", outcome=outcome))
        return (None if score.is_error else score.value), score.cause

    assert judged(EpisodeOutcome(end=EpisodeEnd.ANSWERED, reward=0.25)) == (0.25, None)
    assert judged(EpisodeOutcome(end=EpisodeEnd.ANSWERED)) == (None, None)
    assert judged(EpisodeOutcome(end=EpisodeEnd.STEP_DEADLINE, reason="late")) == (None, ErrorCause.DEADLINE)
    assert judged(None) == (None, ErrorCause.BAD_PROMPT)
