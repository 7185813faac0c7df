"""More than 200 kills in simulated time, of every kind of process in every phase: no group lost, none doubled.

Real parts: controller, buffer, fleets, runner, sync, supervisor, checkpoints, recorder, audit. The actors are fakes
that take (simulated) time and die in the middle of what they do.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.learner_supervisor import LearnerSupervisor
from rayzero.services.loop.activity import Phase
from rayzero.services.loop.checkpointer import Checkpointer, go_on_from
from rayzero.services.loop.controller import Controller
from rayzero.services.loop.evaluation import Evaluator
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.loop.weight_sync import WeightSync
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import WeightSyncError, WorkerError
from rayzero.services.schema.interfaces import RewardWorker, RolloutWorker
from rayzero.services.schema.messages import (
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    UpdateResult,
    Verdict,
)
from rayzero.services.schema.weights import WeightManifest, WeightReceipt
from rayzero.services.store.checkpoints import latest_checkpoint, restore_run
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.ledger import audit
from rayzero.services.store.run_directory import RunDirectory, write_json
from tests.fakes import (
    Events,
    FakeLearner,
    FakePrompts,
    FakeRewardWorker,
    FakeRolloutWorker,
    make_prompt,
    make_recipe,
    make_verdict,
)
from tests.simulated_time import run_simulated

KINDS = ("rollout", "engine", "reward", "sandbox", "learner", "driver", "node")
PHASES = ("generation", "scoring", "update", "sync", "checkpoint")
ROUNDS = 6


class SlowRolloutWorker(FakeRolloutWorker):
    """Every step takes time, and fails at its end when it was killed meanwhile."""

    chance: random.Random

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        self.delay_s = self.chance.uniform(0.5, 6.0)
        return await super().generate(request)

    async def receive_weights(self, manifest: WeightManifest) -> None:
        await asyncio.sleep(0.3)
        await super().receive_weights(manifest)

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        await asyncio.sleep(0.2)
        return await super().apply_weights(policy_version)


class SlowRewardWorker(FakeRewardWorker):
    """Dies whole, or loses a sandbox: then the group's verdicts are errors."""

    dead = False
    lost_sandbox = False

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        await asyncio.sleep(0.7)
        if self.dead:
            raise WorkerError(f"{self.name} died")
        verdicts = await super().score(prompt, prompt_text, completions)
        if self.lost_sandbox:
            self.lost_sandbox = False
            return tuple(make_verdict(float("nan")) for _ in verdicts)
        return verdicts


class SlowLearner(FakeLearner):
    """Every step takes time."""

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        self.delay_s = 2.0
        return await super().update(groups, policy_version)

    async def broadcast_weights(self) -> int:
        await asyncio.sleep(0.3)
        return await super().broadcast_weights()

    async def save_checkpoint(self, directory: str) -> None:
        await asyncio.sleep(1.0)
        await super().save_checkpoint(directory)


class Driver:
    """One attempt at the run: what a process would hold, built anew after every kill of it."""

    def __init__(self, directory: RunDirectory, chance: random.Random, max_staleness: int) -> None:
        clock = asyncio.get_running_loop().time
        self.chance, self.events = chance, Events()
        recipe = storm_recipe(max_staleness)
        often = recipe.checkpoint.model_copy(update={"every_updates": 3})
        self.recipe = recipe.model_copy(update={"checkpoint": often})
        settings = self.recipe.training
        recorder = Recorder(directory)
        self.learners: list[SlowLearner] = []
        self.supervisor = LearnerSupervisor(self._learner, directory.checkpoints, directory.rollouts, max_revivals=50)
        self.engines: Fleet[RolloutWorker] = Fleet("rollout", self._rollout, 8, needs_weights=True, max_restarts=100)
        self.rewarders: Fleet[RewardWorker] = Fleet("reward", self._reward, 8, max_restarts=100)
        runner = GroupRunner(self.engines, self.rewarders, settings.max_group_attempts, lease_deadline_s=300.0)
        saver = Checkpointer(directory.checkpoints, self.supervisor, keep_last=2)
        self.controller = Controller(
            recipe=self.recipe,
            prompts=FakePrompts(),
            buffer=GroupBuffer(
                settings.groups_per_update,
                max_staleness,
                False,
                recorder.on_ledger,
                clock,
                num_spare=settings.num_spare_groups,
            ),
            runner=runner,
            rollouts=self.engines,
            learner=self.supervisor,
            sync=WeightSync(self.supervisor, self.engines, deadline_s=300.0, start_s=300.0, max_attempts=20),
            evaluator=Evaluator(runner, [make_prompt(-1)], self.recipe.evaluation_sampling),
            saver=saver,
            observers=[recorder],
            clock=clock,
        )
        self.checkpoint = latest_checkpoint(directory.checkpoints)
        if self.checkpoint is None:
            recorder.roll_back(-1, 0)
        else:
            restore_run(self.checkpoint, FakePrompts().find, partial(go_on_from, self.controller))
            buffer = self.controller.buffer
            recorder.roll_back(buffer.version, buffer.next_group_id, buffer.entries)

    async def run(self) -> None:
        try:
            await self.supervisor.start(self.checkpoint)
            await self.engines.start(3)
            await self.rewarders.start(2)
            await self.controller.run()
        finally:
            await asyncio.gather(self.engines.close(), self.rewarders.close(), self.supervisor.shutdown())

    async def _rollout(self, name: str) -> SlowRolloutWorker:
        await asyncio.sleep(1.0)
        worker = SlowRolloutWorker(name, self.events)
        worker.chance = self.chance
        return worker

    async def _reward(self, name: str) -> SlowRewardWorker:
        await asyncio.sleep(0.5)
        return SlowRewardWorker(name, self.events)

    async def _learner(self) -> SlowLearner:
        await asyncio.sleep(1.0)
        self.learners.append(SlowLearner(self.events))
        return self.learners[-1]

    def is_in(self, phase: str) -> bool:
        counts, phases = self.controller.buffer.counts(), self.controller.activity.seconds()
        if phase in ("generation", "scoring"):
            return counts["generating" if phase == "generation" else "scoring"] > 0
        return Phase(phase) in phases

    def workers(self, fleet: Fleet[RolloutWorker] | Fleet[RewardWorker]) -> list[FakeRolloutWorker | SlowRewardWorker]:
        found = [slot.worker for slot in fleet.slots]
        return [worker for worker in found if isinstance(worker, FakeRolloutWorker | SlowRewardWorker)]

    def kill(self, kind: str) -> bool:
        """Whether there was one to kill."""
        engines, rewarders = self.workers(self.engines), self.workers(self.rewarders)
        victims: list[FakeRolloutWorker | SlowRewardWorker | SlowLearner] = []
        if kind in ("rollout", "engine"):
            victims = [self.chance.choice(engines)] if engines else []
        elif kind == "reward":
            victims = [self.chance.choice(rewarders)] if rewarders else []
        elif kind == "learner":
            victims = [learner for learner in self.learners[-1:] if not learner.dead]
        elif kind == "node":
            victims = [*engines[:2], *rewarders[:1], *self.learners[-1:]] if engines and rewarders else []
        elif kind == "sandbox" and rewarders:
            for rewarder in rewarders:
                assert isinstance(rewarder, SlowRewardWorker)
                rewarder.lost_sandbox = True
            return True
        for victim in victims:
            if kind == "engine":
                assert isinstance(victim, FakeRolloutWorker)
                victim.failures = {step: WeightSyncError("the engine has died") for step in ("receive", "apply")}
                victim.on_generate = _engine_died
            else:
                victim.dead = True
        return bool(victims)


def _engine_died(request: GroupRequest) -> float:
    raise WorkerError("the engine has died")


def storm_recipe(max_staleness: int) -> Recipe:
    """Where generation and learning overlap, more groups are begun than needed, and the slowest aborted."""
    spare = 0.5 if max_staleness else 0.0
    return make_recipe(num_updates=330, max_staleness=max_staleness, max_group_attempts=4, over_provision=spare)


async def storm(path: Path, seed: int, max_staleness: int) -> Counter[tuple[str, str]]:
    """Kill until every kind died in every phase ROUNDS times; then let the run finish. Returns the kills."""
    chance = random.Random(seed)
    directory = RunDirectory(path)
    plan = [(kind, phase) for kind in KINDS for phase in PHASES] * ROUNDS
    chance.shuffle(plan)
    kills: Counter[tuple[str, str]] = Counter()
    directory.prepare(storm_recipe(max_staleness))
    while True:
        driver = Driver(directory, chance, max_staleness)
        going = asyncio.create_task(driver.run())
        await _strike(driver, going, plan, kills)
        if not going.done():
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
            continue
        going.result()
        break
    assert not plan, f"the run was over before {len(plan)} kills"
    learner = driver.supervisor.current
    assert isinstance(learner, SlowLearner)
    batches = [row for row in read_lines(directory.file("ledger.jsonl")) if row["event"] == "trained"]
    made_of = [[row["group_id"] for row in batches if row["version"] == version] for version in range(1, 331)]
    assert learner.trained == made_of
    write_json(directory.file("summary.json"), {})
    directory.release()
    return kills


async def _strike(
    driver: Driver, going: asyncio.Task[None], plan: list[tuple[str, str]], kills: Counter[tuple[str, str]]
) -> None:
    """Kill by the plan until the driver itself is to be killed, or all is over."""
    while plan and not going.done():
        kind, phase = plan[-1]
        if not (driver.controller.buffer.version > 0 and driver.is_in(phase)):
            await asyncio.sleep(0.05)
            continue
        await asyncio.sleep(driver.chance.choice([0.0, 0.02, 0.1]))
        if not driver.is_in(phase) or (kind != "driver" and not driver.kill(kind)):
            await asyncio.sleep(0.05)
            continue
        plan.pop()
        kills[kind, phase] += 1
        if kind == "driver":
            return
        await asyncio.sleep(driver.chance.uniform(0.0, 8.0))
    if not going.done():
        await asyncio.wait([going])


@pytest.mark.parametrize(("seed", "max_staleness"), [(0, 0), (1, 2)])
def test_a_storm_of_kills_loses_and_doubles_no_group(tmp_path: Path, seed: int, max_staleness: int) -> None:
    kills = run_simulated(storm(tmp_path / "run", seed, max_staleness))
    assert sum(kills.values()) >= 200
    assert {pair for pair, number in kills.items() if number} == {(kind, phase) for kind in KINDS for phase in PHASES}
    found = audit(tmp_path / "run")
    assert found.problems == () and found.finished
    assert found.trained == 330 * 2 and found.in_flight == 0
    assert (found.dropped.get("over-provisioned", 0) > 0) == (max_staleness > 0)
