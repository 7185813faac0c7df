"""A learner that dies comes back at the same version, with every batch trained on once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayzero.services.fleet.learner_supervisor import LearnerSupervisor
from rayzero.services.loop.checkpointer import Checkpointer
from rayzero.services.schema.errors import (
    ActorStartError,
    DeadlineError,
    LearnerRestarted,
    RunDirectoryError,
    RunHalted,
    TaskFailedError,
    UpdateTorn,
    WeightSyncError,
    WorkerError,
)
from rayzero.services.store.checkpoints import latest_checkpoint
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from tests.fakes import Events, FakeLearner, make_group
from tests.unit.services.loop.test_controller import Run


class Workshop:
    """A supervisor whose learners are fakes, its checkpoints and its recorded rollouts."""

    def __init__(self, path: Path) -> None:
        self.events = Events()
        self.learners: list[FakeLearner] = []
        self.checkpoints, self.rollouts = path / "checkpoints", path / "rollouts"
        self.checkpoints.mkdir()
        self.rollouts.mkdir()
        self.supervisor = LearnerSupervisor(self.spawn, self.checkpoints, self.rollouts, max_revivals=2, backoff_s=0.0)

    async def spawn(self) -> FakeLearner:
        self.learners.append(FakeLearner(self.events))
        return self.learners[-1]

    async def train(self, version: int) -> None:
        """One update, and its record on disk."""
        groups = [make_group(2 * version), make_group(2 * version + 1)]
        await self.supervisor.update(groups, version)
        lines = [line for group in groups for line in rollout_lines(group)]
        append_lines(self.rollouts / f"update_{version:06d}.jsonl", lines)

    async def save(self, version: int) -> None:
        controller = Run().controller
        controller.buffer.version = version
        await Checkpointer(self.checkpoints, self.supervisor, keep_last=2).save(controller)


@pytest.mark.parametrize("error", [WorkerError("killed"), DeadlineError("hangs")])
async def test_a_learner_that_fails_in_an_update_makes_it_after_all(tmp_path: Path, error: Exception) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    for version in (1, 2, 3):
        await shop.train(version)
        if version == 2:
            await shop.save(2)
    shop.learners[0].failures["update"] = error
    await shop.train(4)
    assert shop.supervisor.current is shop.learners[1]
    assert shop.learners[1].trained == [[2, 3], [4, 5], [6, 7], [8, 9]]
    assert shop.learners[0].dead and shop.supervisor.revivals == 1


async def test_without_a_checkpoint_it_begins_at_the_beginning(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.train(1)
    await shop.train(2)
    shop.learners[0].dead = True
    await shop.supervisor.prepare_weights(2)
    assert shop.learners[1].trained == [[2, 3], [4, 5]]


async def test_the_batch_that_is_not_recorded_yet_is_remembered(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.supervisor.update([make_group(5)], 1)
    shop.learners[0].dead = True
    await shop.supervisor.prepare_weights(1)
    assert shop.learners[1].trained == [[5]]


@pytest.mark.parametrize("step", ["accept", "broadcast"])
async def test_a_learner_that_dies_within_a_transfer_says_so_when_it_is_back(tmp_path: Path, step: str) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    shop.learners[0].failures[step] = WorkerError("killed")
    with pytest.raises(LearnerRestarted):
        await (shop.supervisor.accept_transfer() if step == "accept" else shop.supervisor.broadcast_weights())
    assert shop.supervisor.current is shop.learners[1]


async def test_what_is_no_death_is_passed_on(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    shop.learners[0].failures |= {"update": RunHalted("NaN"), "broadcast": WeightSyncError("rank 1 is not ready")}
    with pytest.raises(RunHalted):
        await shop.train(1)
    with pytest.raises(WeightSyncError, match="rank 1"):
        await shop.supervisor.broadcast_weights()
    assert shop.supervisor.revivals == 0


async def test_half_an_update_goes_with_its_learner_and_the_run_still_halts(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.train(1)
    shop.learners[0].failures["update"] = UpdateTorn("step 2 of the update was refused")
    with pytest.raises(UpdateTorn):
        await shop.train(2)
    assert shop.supervisor.current is shop.learners[1]
    assert shop.supervisor.policy_version == 1 and len(shop.learners[1].trained) == 1


async def test_one_that_keeps_dying_ends_the_run_with_the_cause(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)

    async def spawn() -> FakeLearner:
        raise WorkerError("out of memory")

    shop.supervisor.spawn = spawn
    shop.learners[0].dead = True
    with pytest.raises(WorkerError, match="3 times in a row; the last: out of memory"):
        await shop.train(1)


async def test_one_whose_node_dies_while_it_starts_is_started_elsewhere(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    spawn = shop.supervisor.spawn

    async def on_a_dead_node() -> FakeLearner:
        shop.supervisor.spawn = spawn
        raise ActorStartError("learner could not start: it was cancelled before it started running")

    shop.supervisor.spawn = on_a_dead_node
    shop.learners[0].dead = True
    await shop.train(1)
    assert shop.supervisor.revivals == 2 and shop.learners[1].trained == [[2, 3]]


async def test_the_first_one_may_die_while_it_loads_its_checkpoint(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.train(1)
    await shop.save(1)
    shop.learners.clear()

    async def spawn() -> FakeLearner:
        learner = await shop.spawn()
        learner.dead = len(shop.learners) == 1
        return learner

    supervisor = LearnerSupervisor(spawn, shop.checkpoints, shop.rollouts, max_revivals=2, backoff_s=0.0)
    await supervisor.start(latest_checkpoint(shop.checkpoints))
    assert supervisor.current is shop.learners[1] and supervisor.policy_version == 1


async def test_one_that_dies_while_it_is_brought_back_is_replaced_again(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.train(1)
    shop.learners[0].dead = True
    original = shop.spawn

    async def spawn() -> FakeLearner:
        learner = await original()
        learner.dead = len(shop.learners) == 2
        return learner

    shop.supervisor.spawn = spawn
    await shop.train(2)
    assert shop.learners[2].trained == [[2, 3], [4, 5]]
    assert shop.supervisor.revivals == 2


async def test_a_keeper_that_was_shut_down_starts_nothing(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.supervisor.shutdown()
    with pytest.raises(WorkerError):
        await shop.train(1)
    assert len(shop.learners) == 1


@pytest.mark.parametrize("step", ["save", "update"])
async def test_what_fails_twice_for_the_same_reason_is_not_blamed_on_the_process(tmp_path: Path, step: str) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    await shop.train(1)
    error = TaskFailedError("learner failed in it: ValueError: GenerationConfig is invalid: temperature")

    async def spawn_broken() -> FakeLearner:
        learner = await shop.spawn()
        if step == "save":  # an update would fail while the new one is brought back
            learner.failures[step] = error
        return learner

    shop.supervisor.spawn = spawn_broken
    shop.learners[0].failures[step] = error
    if step == "save":
        with pytest.raises(RunDirectoryError, match=r"written: .*temperature; a new learner.*none before it"):
            await shop.save(1)
    else:
        await shop.train(2)  # once may be the process
    assert len(shop.learners) == 2


async def test_an_update_that_no_learner_can_make_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    await shop.supervisor.start(None)
    error = TaskFailedError("learner failed in update: IndexError: index out of range in self")

    async def spawn_broken() -> FakeLearner:
        learner = await shop.spawn()
        learner.failures["update"] = error
        return learner

    shop.supervisor.spawn = spawn_broken
    shop.learners[0].failures["update"] = error
    with pytest.raises(WorkerError, match="index out of range in self; a new learner failed in the same way"):
        await shop.train(1)
    assert len(shop.learners) == 2
