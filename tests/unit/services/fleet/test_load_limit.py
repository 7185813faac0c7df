"""The limit follows the load, and work goes where there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.load_limit import LoadLimit
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.schema.interfaces import RewardWorker, RolloutWorker
from rayzero.services.schema.messages import GroupCompletions, GroupRequest, RolloutStats, Sampling
from tests.fakes import Events, FakeRewardWorker, FakeRolloutWorker, make_prompt
from tests.simulated_time import run_simulated


def stats(num_waiting: int = 0, kv: float = 0.5, preemptions: int = 0) -> RolloutStats:
    return RolloutStats(
        worker="rollout-0",
        policy_version=0,
        num_running=8,
        num_waiting=num_waiting,
        kv_cache_usage=kv,
        generated_tokens=0,
        prompt_tokens=0,
        preemptions=preemptions,
    )


def test_each_sign_of_too_much_takes_a_tenth_once_a_round() -> None:
    for sign in (stats(num_waiting=1), stats(kv=0.96), stats(preemptions=1)):
        limit = LoadLimit(20)
        limit.note(sign, in_flight=20)
        assert limit.value == 18
        for left in range(19):
            limit.note(stats(num_waiting=9), in_flight=20 - left)
        assert limit.value == 18, "the twenty that were begun before say nothing of the new limit"
        limit.note(stats(num_waiting=1, preemptions=1), in_flight=18)
        assert limit.value == 16


def test_it_grows_by_one_a_round_when_used_up_and_never_leaves_its_bounds() -> None:
    limit = LoadLimit(3)
    for _ in range(12):
        limit.note(stats(num_waiting=1), in_flight=1)
    assert limit.value == 1
    limit.note(stats(), in_flight=0)
    assert limit.value == 1, "not used up: more would not be taken"
    for _ in range(12):
        limit.note(stats(), in_flight=3)
    assert limit.value == 3


def test_preemptions_are_those_since_the_last_report() -> None:
    limit = LoadLimit(10)
    limit.note(stats(preemptions=4), in_flight=1)
    limit.note(stats(preemptions=4), in_flight=1)
    assert limit.value == 9


class CrowdedEngine(FakeRolloutWorker):
    """Computes `width` groups side by side; the others wait inside it."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__(name, Events())
        self.inside, self.width = 0, width
        self.desks = asyncio.Semaphore(width)
        self.on_generate = lambda request: 1.0 + (request.group_id % 7) / 10

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        self.inside += 1
        async with self.desks:
            made = await super().generate(request)
        waiting = max(0, self.inside - self.width)
        self.inside -= 1
        return replace(made, load=stats(num_waiting=waiting))


async def crowd(num_groups: int) -> tuple[Fleet[RolloutWorker], Counter[str]]:
    async def engine(name: str) -> CrowdedEngine:
        return CrowdedEngine(name, width=4 if name == "rollout-0" else 12)

    async def reward(name: str) -> FakeRewardWorker:
        return FakeRewardWorker(name, Events())

    rollouts: Fleet[RolloutWorker] = Fleet("rollout", engine, limit=32)
    rewards: Fleet[RewardWorker] = Fleet("reward", reward, limit=64)
    await rollouts.start(2)
    await rewards.start(1)
    runner = GroupRunner(rollouts, rewards, max_attempts=1, lease_deadline_s=1e6)

    async def carry(number: int) -> str:
        sampling = Sampling(num_completions=1, max_tokens=1)
        return (await runner.run(GroupRequest(group_id=number, prompt=make_prompt(number), sampling=sampling))).worker

    return rollouts, Counter(await asyncio.gather(*(carry(number) for number in range(num_groups))))


def test_the_limit_settles_at_what_an_engine_computes_side_by_side_and_work_follows_it() -> None:
    rollouts, done = run_simulated(crowd(1400))
    narrow, wide = rollouts.slots
    assert 4 <= narrow.limit.value <= 6 and 11 <= wide.limit.value <= 14
    assert 2.5 < done["rollout-1"] / done["rollout-0"] < 3.5, "three times as wide"
