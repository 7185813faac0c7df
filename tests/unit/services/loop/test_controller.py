"""The whole loop on fakes: strict and overlapped, with failures, stops and resume."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.canary import Canary
from rayzero.services.loop.checkpointer import go_on_from, state_of
from rayzero.services.loop.controller import Controller
from rayzero.services.loop.evaluation import Evaluation, Evaluator
from rayzero.services.loop.gpu_time_sharing import GpuTimeSharing
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.loop.weight_sync import WeightSync
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.learner import LearnerSettings, WatchSettings
from rayzero.services.schema.errors import (
    DeadlineError,
    NothingToTrainOn,
    PromptRefused,
    PromptTooLong,
    RunDirectoryError,
    RunHalted,
    WorkerError,
)
from rayzero.services.schema.interfaces import RewardWorker, RolloutWorker
from rayzero.services.schema.messages import Group, GroupRequest
from tests.fakes import (
    Events,
    FakeLearner,
    FakePrompts,
    FakeRewardWorker,
    FakeRolloutWorker,
    make_prompt,
    make_recipe,
)


class Watcher:
    """Observer and saver in one."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.evaluations: list[Evaluation] = []
        self.dropped: list[str] = []
        self.saved: list[int] = []
        self.on_row: Any = None

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        self.rows.append(row)
        if self.on_row is not None:
            self.on_row(row)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    def on_drop(self, group: Group, reason: str) -> None:
        self.dropped.append(reason)

    async def save(self, controller: Controller) -> None:
        self.saved.append(controller.buffer.version)


class Run:
    """A controller whose actors are fakes."""

    def __init__(self, num_workers: int = 1, rewards: Sequence[float] = (0.0, 1.0), **training: Any) -> None:
        self.recipe = make_recipe(**training)
        self.events = Events()
        self.ledger: list[tuple[str, int]] = []
        self.details: set[str] = set()
        """What the ledger says beside the reasons."""
        self.workers: dict[str, FakeRolloutWorker] = {}
        self.num_workers = num_workers
        self.learner = FakeLearner(self.events)
        self.watcher = Watcher()
        self.engines: Fleet[RolloutWorker] = Fleet("rollout", self._rollout, limit=8, needs_weights=True)
        self.rewarders: Fleet[RewardWorker] = Fleet("reward", self._reward, limit=8)
        self.rewards = rewards
        self.prompts = FakePrompts()
        settings = self.recipe.training
        runner = GroupRunner(self.engines, self.rewarders, settings.max_group_attempts, lease_deadline_s=2.0)
        self.controller = Controller(
            recipe=self.recipe,
            prompts=self.prompts,
            buffer=GroupBuffer(
                groups_per_update=settings.groups_per_update,
                max_staleness=settings.max_staleness,
                drop_stale=settings.on_stale == "drop",
                num_spare=settings.num_spare_groups,
                record=self._record,
                clock=asyncio.get_running_loop().time,
            ),
            runner=runner,
            rollouts=self.engines,
            learner=self.learner,
            sync=WeightSync(self.learner, self.engines, deadline_s=2.0, start_s=2.0),
            evaluator=Evaluator(runner, [make_prompt(100), make_prompt(101)], self.recipe.evaluation_sampling),
            saver=self.watcher,
            observers=[self.watcher],
            clock=asyncio.get_running_loop().time,
        )

    def _record(self, event: str, group_id: int, detail: str = "", **_: Any) -> None:
        self.ledger.append((event, group_id))
        self.details |= {detail} - {""}

    async def _rollout(self, name: str) -> FakeRolloutWorker:
        worker = self.workers[name] = FakeRolloutWorker(name, self.events)
        return worker

    async def _reward(self, name: str) -> FakeRewardWorker:
        return FakeRewardWorker(name, self.events, self.rewards)

    async def start(self) -> None:
        await self.engines.start(self.num_workers)
        await self.rewarders.start(1)

    async def go(self) -> None:
        await self.start()
        async with asyncio.timeout(20):
            await self.controller.run()

    def fate(self) -> dict[int, list[str]]:
        fates: dict[int, list[str]] = {}
        for event, group_id in self.ledger:
            if event != "admitted":
                fates.setdefault(group_id, []).append(event)
        return fates


async def test_strict_run_trains_every_group_once_on_its_own_version() -> None:
    run = Run()
    await run.go()
    assert run.learner.trained == [[0, 1], [2, 3], [4, 5]]
    assert run.learner.staleness == [0] * 6
    assert [row["update"] for row in run.watcher.rows] == [1, 2, 3]
    assert [evaluation.policy_version for evaluation in run.watcher.evaluations] == [0, 3]
    assert run.watcher.saved == [3]
    assert run.prompts.position == 6


async def test_strict_run_never_generates_while_the_learner_updates() -> None:
    run = Run()
    run.learner.delay_s = 0.01
    await run.go()
    for index, event in enumerate(run.events):
        if event == "learner.update":
            assert run.events[index + 1] == "learner.prepare"


async def test_engine_sleeps_while_the_learner_updates_and_one_that_does_not_wake_is_replaced() -> None:
    run = Run()
    run.controller._gpu = GpuTimeSharing(run.engines, are_taken=True)
    await run.start()
    run.watcher.on_row = lambda row: (
        row["update"] == 1 and run.workers["rollout-0"].failures.update(wake=WorkerError("scripted"))
    )
    async with asyncio.timeout(20):
        await run.controller.run()
    turns = [event for event in run.events if event.split(".")[1] in ("sleep", "update", "wake")]
    asleep = [f"{worker}.{step}" for worker in ("rollout-0", "rollout-1") for step in ("sleep", "wake")]
    assert turns == [
        asleep[0], "learner.update", asleep[1], asleep[0], "learner.update", asleep[1],
        asleep[2], "learner.update", asleep[3],
    ]  # fmt: skip
    assert run.learner.trained == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("min_tokens", [1, 512])
async def test_an_engine_that_computes_something_else_stops_an_overlapped_run(min_tokens: int) -> None:
    """Hardly a token there is trained on by the weights that sampled it: what both sides score after a sync tells."""
    run = Run(num_workers=2, num_updates=6, max_staleness=1)
    learner = LearnerSettings(watch=WatchSettings(min_tokens=min_tokens))
    run.controller.recipe = run.recipe.model_copy(update={"learner": learner})
    run.controller.sync.canary = Canary.of(run.recipe)
    await run.start()
    run.watcher.on_row = lambda row: (
        row["update"] == 2 and [setattr(worker, "wrong_by", 0.24) for worker in run.workers.values()]
    )
    async with asyncio.timeout(20):
        if min_tokens == 1:
            with pytest.raises(RunHalted, match=r"kl_canary is 0.0266 nats a token, over 0.02"):
                await run.controller.run()
        else:
            await run.controller.run()
    rows = {row["update"]: row for row in run.watcher.rows}
    assert [rows[update]["kl_canary"] for update in (1, 2)] == [0, 0]
    assert rows[3]["kl_canary"] == pytest.approx(0.0266, abs=1e-4) and "over" in rows[3]["warnings"][-1]
    assert (max(rows), run.watcher.saved[-1]) == ((3, 3) if min_tokens == 1 else (6, 6))


def delay_of(worker: int, request: GroupRequest) -> float:
    return 0.001 * (1 + (request.group_id * 7 + worker) % 9)


async def test_overlapped_run_keeps_the_bound_and_trains_each_group_once() -> None:
    run = Run(num_workers=2, num_updates=12, max_staleness=2)
    run.learner.delay_s = 0.002
    await run.start()
    for number, worker in enumerate(run.workers.values()):
        worker.on_generate = partial(delay_of, number)
    async with asyncio.timeout(20):
        await run.controller.run()
    assert max(run.learner.staleness) <= 2
    assert len(run.watcher.rows) == 12
    trained = [group_id for batch in run.learner.trained for group_id in batch]
    assert len(trained) == len(set(trained)) == 24


async def test_a_dead_worker_costs_time_and_no_group() -> None:
    run = Run(num_workers=2, num_updates=6, max_staleness=1)
    await run.start()
    for worker in run.workers.values():
        worker.on_generate = lambda request: 0.002
    run.watcher.on_row = lambda row: row["update"] == 2 and setattr(run.workers["rollout-0"], "dead", True)
    async with asyncio.timeout(20):
        await run.controller.run()
    assert [fate for fate in run.fate().values() if fate != ["trained"]] == []
    assert "rollout-2" in run.workers and run.workers["rollout-2"].version == 6


async def test_a_group_that_fails_everywhere_is_dropped_with_its_reason_and_replaced() -> None:
    run = Run(max_group_attempts=2)
    await run.start()
    failing = run.workers["rollout-0"]

    def generate(request: Any) -> float:
        if request.group_id == 1:
            raise WorkerError("scripted")
        return 0.0

    failing.on_generate = generate
    original = run._rollout

    async def respawn(name: str) -> FakeRolloutWorker:
        worker = await original(name)
        worker.on_generate = generate
        return worker

    run.engines.spawn = respawn
    async with asyncio.timeout(20):
        await run.controller.run()
    assert run.fate()[1] == ["dropped"]
    assert run.controller.buffer.dropped.keys() == {DropReason.FAILED}
    assert run.details >= {"generation failed 2 times; the last cause: scripted"}
    assert len(run.watcher.rows) == 3


async def test_uniform_groups_are_resampled_when_asked_for() -> None:
    run = Run(num_updates=1, skip_uniform_groups=True)
    await run.start()
    worker = run.rewarders.slots[0].worker
    assert isinstance(worker, FakeRewardWorker)
    scored = 0
    original = worker.score

    async def score(*args: Any) -> Any:
        nonlocal scored
        scored += 1
        worker.rewards = [1.0] if 2 < scored <= 5 else [0.0, 1.0]
        return await original(*args)

    worker.score = score  # type: ignore[method-assign,assignment]
    async with asyncio.timeout(20):
        await run.controller.run()
    assert run.watcher.dropped == ["uniform rewards"] * 3
    assert run.controller.buffer.dropped == {"uniform rewards": 3}
    assert len(run.learner.trained[0]) == 2


async def test_groups_whose_verdicts_are_errors_are_dropped() -> None:
    run = Run(num_updates=1, max_refills=4, rewards=(float("nan"), float("nan"), 1.0))
    await run.start()
    run.controller.evaluator.prompts = []
    run.controller.accuracies = {0: 0.0}
    with pytest.raises(NothingToTrainOn, match="9 groups, verdict errors"):
        async with asyncio.timeout(20):
            await run.controller.run()
    assert run.controller.buffer.dropped[DropReason.VERDICT_ERRORS] >= 9
    assert run.learner.trained == []


async def test_the_slowest_groups_are_aborted_at_their_engine_when_no_batch_may_use_them_any_more() -> None:
    run = Run(num_updates=8, max_staleness=1, over_provision=0.5)
    await run.start()
    run.workers["rollout-0"].on_generate = lambda request: 3600.0 if request.group_id == 1 else 0.002
    async with asyncio.timeout(20):
        await run.controller.run()
    assert "rollout-0.abort 1" in run.events
    assert run.fate()[1] == ["dropped"] and run.controller.runner.aborted_tokens >= 6
    assert set(run.controller.buffer.dropped) == {"over-provisioned"}
    assert [fate for fate in run.fate().values() if len(fate) != 1] == []
    assert len(run.fate()) == run.controller.buffer.next_group_id, "nothing that was begun is left open"
    assert max(run.learner.staleness) <= 1 and run.workers["rollout-0"].running == {}


async def test_a_stale_group_is_aborted_at_its_engine_too() -> None:
    run = Run(num_updates=6, max_staleness=1, on_stale="drop")
    await run.start()
    run.workers["rollout-0"].on_generate = lambda request: 3600.0 if request.group_id == 1 else 0.002
    async with asyncio.timeout(20):
        await run.controller.run()
    assert "rollout-0.abort 1" in run.events
    assert run.controller.buffer.dropped == {"stale": 1}


@pytest.mark.parametrize(("on_new_weights", "newest"), [("wait", 2), ("mix", 3)])
async def test_an_evaluation_beside_the_training_is_of_one_version_or_says_of_which(
    on_new_weights: str, newest: int
) -> None:
    run = Run(num_updates=6, max_staleness=2)
    settings = run.recipe.evaluation.model_copy(update={"every_updates": 2, "on_new_weights": on_new_weights})
    run.controller.recipe = run.recipe.model_copy(update={"evaluation": settings})
    await run.start()
    run.workers["rollout-0"].on_generate = lambda request: 0.05 if request.group_id < 0 else 0.002
    async with asyncio.timeout(20):
        await run.controller.run()
    second = next(found for found in run.watcher.evaluations if found.policy_version == 2)
    assert second.versions[0] == 2 and (second.versions[1] == 2) == (newest == 2)
    third = run.watcher.rows[2]
    assert (third["hold_s"] > 0.01) == (on_new_weights == "wait")
    assert run.events.count("learner.update") == 6 and max(run.learner.staleness) <= 2


async def test_a_save_beside_an_evaluation_knows_that_its_version_is_being_measured() -> None:
    """It is made before the accuracy is known: pruned by what is known then, the best would go."""
    run = Run(num_updates=6, max_staleness=2)
    run.controller.recipe = run.recipe.model_copy(
        update={
            "evaluation": run.recipe.evaluation.model_copy(update={"every_updates": 2}),
            "checkpoint": run.recipe.checkpoint.model_copy(update={"every_updates": 2}),
        }
    )
    seen: dict[int, int | None] = {}

    async def save(controller: Controller) -> None:
        version = controller.buffer.version
        seen[version] = version if version in controller.accuracies else controller.measuring

    run.watcher.save = save  # type: ignore[method-assign]
    await run.start()
    run.workers["rollout-0"].on_generate = lambda request: 0.05 if request.group_id < 0 else 0.002
    async with asyncio.timeout(20):
        await run.controller.run()
    assert seen == {2: 2, 4: 4, 6: 6}


async def test_an_evaluation_that_lost_every_engine_does_not_hold_back_the_weights_that_the_next_one_needs() -> None:
    run = Run(num_updates=4, max_staleness=2)
    settings = run.recipe.evaluation.model_copy(update={"every_updates": 2})
    run.controller.recipe = run.recipe.model_copy(update={"evaluation": settings})
    await run.start()
    run.workers["rollout-0"].on_generate = lambda request: 0.01 if request.group_id < 0 else 0.002
    run.watcher.on_row = lambda row: row["update"] == 2 and setattr(run.workers["rollout-0"], "dead", True)
    async with asyncio.timeout(20):
        await run.controller.run()
    assert {found.policy_version for found in run.watcher.evaluations} == {0, 2, 4}
    assert len(run.watcher.rows) == 4


async def test_stop_finishes_the_update_saves_and_returns() -> None:
    run = Run(num_updates=50)
    run.watcher.on_row = lambda row: row["update"] == 2 and run.controller.stop()
    await run.go()
    assert run.controller.buffer.version == 2
    assert run.watcher.saved == [2]


async def test_a_halted_run_saves_before_it_raises() -> None:
    run = Run()
    run.watcher.on_row = lambda row: run.learner.failures.update(update=RunHalted("loss is NaN"))
    with pytest.raises(RunHalted, match="loss is NaN"):
        await run.go()
    assert run.watcher.saved == [1]


async def test_a_resumed_run_goes_on_where_the_other_stopped() -> None:
    first = Run(num_updates=4)
    first.watcher.on_row = lambda row: row["update"] == 2 and first.controller.stop()
    await first.go()
    second = Run(num_updates=4)
    assert second.controller.evaluates_first
    go_on_from(second.controller, state_of(first.controller))
    assert not second.controller.evaluates_first, "as it is, it was evaluated, or is not to be"
    await second.go()
    assert second.learner.trained == [[4, 5], [6, 7]]
    assert [row["update"] for row in second.watcher.rows] == [3, 4]
    assert second.controller.num_samples == 16


async def test_nothing_finished_for_too_long_is_a_stall_with_a_report() -> None:
    run = Run()
    await run.start()
    run.workers["rollout-0"].on_generate = lambda request: 0.0 if request.group_id < 0 else 3600.0
    deadlines = run.recipe.deadlines.model_copy(update={"stall_s": 1.0})
    run.controller.recipe = run.recipe.model_copy(update={"deadlines": deadlines})
    with pytest.raises(DeadlineError) as stall:
        async with asyncio.timeout(20):
            await run.controller.run()
    assert run.controller.stalled_s >= 1.0
    report = re.sub(r"\d+ s\b", "N s", str(stall.value))
    assert "the learner waits for groups for N s: 0 of 2 groups are ready" in report
    assert "rollout-0 is serving version 0 for N s, holds groups 0, 1 (generating for N s)" in report
    assert "reward-0 is serving for N s, holds no group" in report
    assert "group 0 (train/0): generating at rollout-0 for" in report


async def test_a_halted_update_drops_its_groups_with_the_reason() -> None:
    run = Run()
    run.watcher.on_row = lambda row: run.learner.failures.update(update=RunHalted("loss is NaN"))
    with pytest.raises(RunHalted):
        await run.go()
    assert set(run.controller.buffer.dropped) == {DropReason.HALTED}
    assert run.details == {"loss is NaN"}
    assert run.fate()[2] == run.fate()[3] == ["dropped"]


async def test_a_stop_leaves_the_evaluation_under_way_to_the_run_that_goes_on() -> None:
    run = Run(num_updates=6)
    settings = run.recipe.evaluation.model_copy(update={"every_updates": 2})
    run.controller.recipe = run.recipe.model_copy(update={"evaluation": settings})
    await run.start()
    hanging = asyncio.Event()

    def delay(request: GroupRequest) -> float:
        if request.group_id < 0 and run.controller.buffer.version == 2:
            hanging.set()
            return 3600.0
        return 0.0

    run.workers["rollout-0"].on_generate = delay
    going = asyncio.create_task(run.controller.run())
    async with asyncio.timeout(20):
        await hanging.wait()
        run.controller.stop()
        await going
    assert run.watcher.saved == [2] and set(run.controller.accuracies) == {0}
    second = Run(num_updates=6)
    second.controller.recipe = run.controller.recipe
    go_on_from(second.controller, state_of(run.controller))
    await second.go()
    assert [found.policy_version for found in second.watcher.evaluations] == [2, 4, 6]


@pytest.mark.parametrize("max_staleness", [0, 1])
async def test_a_run_ends_at_the_accuracy_that_it_was_made_for(max_staleness: int) -> None:
    run = Run(num_updates=50, max_staleness=max_staleness, stop_at_accuracy=0.9)
    settings = run.recipe.evaluation.model_copy(update={"every_updates": 2})
    run.controller.recipe = run.recipe.model_copy(update={"evaluation": settings})
    await run.start()

    def improve(row: dict[str, Any]) -> None:
        if row["update"] == 3:
            for worker in run.rewarders.slots:
                worker.live_worker.rewards = [1.0]  # type: ignore[attr-defined]

    run.watcher.on_row = improve
    async with asyncio.timeout(20):
        await run.controller.run()
    controller = run.controller
    assert controller.is_over and 4 <= controller.buffer.version < 10
    assert controller.accuracies[controller.buffer.version] == 1.0 and run.watcher.saved == [controller.buffer.version]
    assert not controller.buffer.entries, "every group has its end in the ledger"


async def test_a_fleet_that_gives_up_ends_the_run_with_its_cause_and_the_updates_are_saved() -> None:
    run = Run(num_updates=50, max_staleness=1)
    run.engines.max_restarts = 0

    def fail(row: dict[str, Any]) -> None:
        if row["update"] == 3:
            run.workers["rollout-0"].failures["generate"] = WorkerError("the GPU fell off the bus")

    run.watcher.on_row = fail
    with pytest.raises(WorkerError, match="rollout workers failed 1 times in a row; the last: the GPU fell off"):
        await run.go()
    assert run.watcher.saved == [run.controller.buffer.version] and run.watcher.saved[0] >= 3


async def test_what_cannot_be_saved_is_not_tried_again() -> None:
    run = Run(num_updates=50)
    settings = run.recipe.checkpoint.model_copy(update={"every_updates": 2})
    run.controller.recipe = run.recipe.model_copy(update={"checkpoint": settings})
    tried = []

    async def save(controller: Controller) -> None:
        tried.append(controller.buffer.version)
        raise RunDirectoryError("the disk is full")

    run.watcher.save = save  # type: ignore[method-assign]
    with pytest.raises(RunDirectoryError, match="disk is full"):
        await run.go()
    assert tried == [2]


async def test_a_reward_fleet_that_gives_up_ends_the_run_with_its_own_cause() -> None:
    run = Run(num_updates=50)
    run.rewarders.max_restarts = 2
    run.rewarders.backoff_s = 0.0
    await run.start()

    async def broken(name: str) -> FakeRewardWorker:
        worker = FakeRewardWorker(name, run.events)
        worker.failures = [WorkerError("no rubric for source 'gsm8k'")] * 100
        return worker

    def fail(row: dict[str, Any]) -> None:
        if row["update"] == 1:
            run.rewarders.spawn = broken
            for slot in list(run.rewarders.slots):
                run.rewarders.fail(slot, WorkerError("killed"))

    run.watcher.on_row = fail
    with pytest.raises(WorkerError, match="reward workers failed 3 times in a row; the last: no rubric for source"):
        async with asyncio.timeout(20):
            await run.controller.run()
    assert run.controller.buffer.dropped[DropReason.FAILED] <= 2


async def test_a_prompt_that_cannot_be_rendered_costs_itself_alone() -> None:
    run = Run(num_updates=4)
    said: list[str] = []
    run.controller.say = run.controller._drops.say = said.append
    await run.start()

    def refuse(request: GroupRequest) -> float:
        if request.group_id in (1, 4):
            raise PromptRefused(f"prompt train/{request.group_id} (roles: system, user): no system role")
        return 0.0

    run.workers["rollout-0"].on_generate = refuse
    async with asyncio.timeout(20):
        await run.controller.run()
    assert run.controller.buffer.dropped == {DropReason.REFUSED: 2}
    assert list(run.workers) == ["rollout-0"] and run.engines.restarts == 0, "the engine lives"
    assert sorted(group_id for batch in run.learner.trained for group_id in batch) == [0, 2, 3, 5, 6, 7, 8, 9]
    assert [line.partition(";")[0] for line in said] == [
        "dropped: 1 group, refused (the latest: prompt train/1 (roles: system, user): no system role)"
    ]


async def test_prompts_that_are_all_too_long_end_the_run_and_say_so() -> None:
    run = Run(num_updates=4, max_refills=3)
    await run.start()

    def refuse(request: GroupRequest) -> float:
        if request.group_id >= 0 and run.controller.buffer.version == 2:
            raise PromptTooLong(f"prompt train/{request.group_id} has 102 tokens")
        return 0.0

    run.workers["rollout-0"].on_generate = refuse
    with pytest.raises(NothingToTrainOn) as error:
        async with asyncio.timeout(20):
            await run.controller.run()
    assert "7 groups were dropped since update 2" in str(error.value)
    assert "7 groups, too long (the latest: prompt train/" in str(error.value)
    assert "set data.max_prompt_tokens" in str(error.value)
    assert run.watcher.saved == [2], "what was made is kept"


async def test_rewards_that_never_differ_end_the_run_and_say_so() -> None:
    run = Run(rewards=(1.0,), skip_uniform_groups=True, max_refills=5)
    with pytest.raises(NothingToTrainOn, match=r"11 groups, uniform rewards .*too easy or too hard"):
        await run.go()


async def test_a_stall_names_what_was_dropped() -> None:
    run = Run(num_updates=4)
    await run.start()

    def drop_one_and_hang(request: GroupRequest) -> float:
        if request.group_id == 0:
            raise PromptTooLong("prompt train/0 has 102 tokens")
        return 0.0 if request.group_id < 0 else 3600.0

    run.workers["rollout-0"].on_generate = drop_one_and_hang
    deadlines = run.recipe.deadlines.model_copy(update={"stall_s": 1.0})
    run.controller.recipe = run.recipe.model_copy(update={"deadlines": deadlines})
    with pytest.raises(DeadlineError, match=r"stalled: no update could be made for \d+ s\n  dropped since .* too long"):
        async with asyncio.timeout(20):
            await run.controller.run()


async def test_without_held_out_prompts_a_run_trains_and_ends() -> None:
    run = Run()
    evaluation = run.recipe.evaluation.model_copy(update={"num_prompts": 0})
    run.controller.recipe = run.recipe.model_copy(update={"evaluation": evaluation})
    await run.go()
    assert [row["update"] for row in run.watcher.rows] == [1, 2, 3]
    assert run.watcher.evaluations == [] and run.controller.accuracies == {} and run.watcher.saved == [3]
