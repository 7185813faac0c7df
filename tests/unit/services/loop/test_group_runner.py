"""One group from its prompt to its verdicts: another worker after a failure, its batch left, an abort in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.group_buffer import GroupState
from rayzero.services.loop.group_runner import GroupAborted, GroupRunner
from rayzero.services.schema.episodes import Branch
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import Completion, GroupBatch, GroupCompletions, GroupRequest, Sampling, Verdict
from tests.fakes import Events, FakeRewardWorker, FakeRolloutWorker, make_prompt

REQUEST = GroupRequest(
    group_id=5, prompt=make_prompt(5), sampling=Sampling(num_completions=2, max_tokens=8, temperature=1.0, seed=0)
)


class Workers:
    """Two engines and a reward worker, and the runner between them."""

    def __init__(self) -> None:
        self.events = Events()
        self.engines: dict[str, FakeRolloutWorker] = {}
        self.judges: list[FakeRewardWorker] = []
        self.moves: list[tuple[GroupState, str]] = []
        self.rollouts: Fleet[Any] = Fleet("rollout", self._engine, limit=4, backoff_s=0.0)
        self.rewards: Fleet[Any] = Fleet("reward", self._judge, limit=4, backoff_s=0.0)
        self.runner = GroupRunner(self.rollouts, self.rewards, max_attempts=2, lease_deadline_s=2.0)

    async def _engine(self, name: str) -> FakeRolloutWorker:
        self.engines[name] = worker = FakeRolloutWorker(name, self.events)
        worker.version = 3
        return worker

    async def _judge(self, name: str) -> FakeRewardWorker:
        self.judges.append(FakeRewardWorker(name, self.events))
        return self.judges[-1]

    async def start(self) -> Workers:
        await self.rollouts.start(2)
        await self.rewards.start(1)
        return self

    def note(self, state: GroupState, holder: str) -> None:
        self.moves.append((state, holder))


async def test_the_way_of_a_group() -> None:
    workers = await Workers().start()
    group = await workers.runner.run(REQUEST, workers.note)
    assert [rollout.verdict.reward for rollout in group.rollouts] == [0.0, 1.0]
    assert group.worker == "rollout-0" and group.oldest_version == 3
    assert workers.moves == [
        (GroupState.WAITING, ""), (GroupState.GENERATING, "rollout-0"), (GroupState.SCORING, "reward-0"),
    ]  # fmt: skip


async def test_routing_goes_to_the_learner_and_not_to_reward_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = await Workers().start()
    rows, seen = np.zeros((2, 1, 1), np.uint8), list[Completion]()
    generate, score = FakeRolloutWorker.generate, FakeRewardWorker.score

    async def with_rows(self: FakeRolloutWorker, request: GroupRequest) -> GroupCompletions:
        made = await generate(self, request)
        completions = []
        for each in made.completions:
            branch = Branch(parent=0, fork=1, completion=replace(each, routed_experts=rows), reason="rewritten")
            completions.append(replace(each, routed_experts=rows, branches=(branch,)))
        return replace(made, completions=tuple(completions), prompt_routed_experts=rows)

    async def watched(self: FakeRewardWorker, prompt: Any, text: str, completions: Any) -> tuple[Verdict, ...]:
        seen.extend(path for each in completions for path in each.paths)
        return await score(self, prompt, text, completions)

    monkeypatch.setattr(FakeRolloutWorker, "generate", with_rows)
    monkeypatch.setattr(FakeRewardWorker, "score", watched)
    group = await workers.runner.run(REQUEST)
    assert len(seen) == 4 and all(path.routed_experts is None for path in seen)
    assert group.prompt_routed_experts is rows
    assert all(path.routed_experts is rows for each in group.rollouts for path in each.completion.paths)


async def test_a_failed_engine_costs_an_attempt_and_the_group_its_batch() -> None:
    workers = await Workers().start()
    asked = list[GroupRequest]()
    for engine in workers.engines.values():
        engine.on_generate = lambda request: asked.append(request) or 0.0
    workers.engines["rollout-1"].failures["generate"] = WorkerError("out of memory")
    request = replace(REQUEST, batch=GroupBatch(batch_id="wave at rollout-1", size=8))
    group = await workers.runner.run(request, worker="rollout-1")
    assert group.worker == "rollout-0"
    assert [each.batch for each in asked] == [None], "the rest of its batch is at the other engine"


async def test_after_the_last_attempt_the_last_cause_is_said() -> None:
    workers = await Workers().start()
    for engine in workers.engines.values():
        engine.failures["generate"] = WorkerError(f"{engine.name} is out of memory")
    with pytest.raises(WorkerError, match=r"generation failed 2 times; the last cause: rollout-. is out of memory"):
        await workers.runner.run(REQUEST)


async def test_verdicts_that_are_errors_are_asked_for_again_and_kept_where_they_stay_errors() -> None:
    workers = await Workers().start()
    (judge,) = workers.judges
    judge.rewards = [float("nan")]
    group = await workers.runner.run(REQUEST)
    assert [rollout.verdict.is_error for rollout in group.rollouts] == [True, True]
    assert workers.events.count("reward-0.score") == 2


async def test_an_aborted_group_ends_with_what_it_cost() -> None:
    workers = await Workers().start()
    for engine in workers.engines.values():
        engine.delay_s = 30.0
    task = asyncio.create_task(workers.runner.run(REQUEST, workers.note))
    while GroupState.GENERATING not in [state for state, _ in workers.moves]:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    await workers.runner.abort(5, workers.moves[-1][1])
    with pytest.raises(GroupAborted):
        await task
    assert workers.runner.aborted_tokens == 6
