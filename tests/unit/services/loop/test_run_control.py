"""What may be asked of a live run, on the fakes of the controller's tests."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import pytest

from rayzero.services.loop.run_control import RunControl
from rayzero.services.schema.errors import UsageError
from tests.unit.services.loop.test_controller import Run


async def start(run: Run) -> tuple[RunControl, asyncio.Task[None]]:
    await run.start()
    for worker in run.workers.values():
        worker.on_generate = lambda request: 0.002
    return RunControl(run.controller), asyncio.create_task(run.controller.run())


async def until(run: Run, update: int) -> None:
    async with asyncio.timeout(10):
        while len(run.watcher.rows) < update:
            await asyncio.sleep(0.001)


async def test_workers_join_and_leave_while_the_run_trains_and_no_group_is_lost() -> None:
    run = Run(num_updates=200, max_staleness=1)
    control, going = await start(run)
    await until(run, 3)
    await control.scale(rollout=3, reward=2)
    await until(run, 12)
    assert {worker.name: worker.state for worker in control.status().workers} == {
        name: "serving" for name in ("rollout-0", "rollout-1", "rollout-2", "reward-0", "reward-1")
    }
    await control.scale(rollout=1, reward=1)
    await going
    assert control.status().targets == {"rollout": 1, "reward": 1}
    assert len(control.status().workers) == 2
    assert {tuple(fate) for fate in run.fate().values()} == {("trained",)}
    assert [row["update"] for row in run.watcher.rows] == list(range(1, 201))


async def test_scaling_past_the_recipes_bounds_changes_nothing() -> None:
    run = Run(num_updates=3)
    control, going = await start(run)
    with pytest.raises(UsageError, match=r"0 reward workers: the recipe allows 1 to 64"):
        await control.scale(rollout=2, reward=0)
    assert control.status().targets == {"rollout": 1, "reward": 1}
    await going


async def test_a_paused_run_stands_still_until_it_is_resumed() -> None:
    run = Run(num_updates=200, max_staleness=1)
    control, going = await start(run)
    await until(run, 4)
    await control.pause()
    assert control.status().paused
    before = (len(run.watcher.rows), run.events.count("learner.update"))
    await asyncio.sleep(0.05)
    assert (len(run.watcher.rows), run.events.count("learner.update")) == before
    assert control.status().groups["generating"] == control.status().groups["scoring"] == 0
    await control.resume()
    await going
    assert len(run.watcher.rows) == 200


async def test_a_pause_is_no_stall() -> None:
    run = Run(num_updates=60)
    deadlines = run.recipe.deadlines.model_copy(update={"stall_s": 0.5})
    run.controller.recipe = run.recipe.model_copy(update={"deadlines": deadlines})
    control, going = await start(run)
    await until(run, 2)
    await control.pause()
    await asyncio.sleep(1.0)
    await control.resume()
    await going
    assert len(run.watcher.rows) == 60


async def test_a_checkpoint_on_demand_lies_between_two_updates() -> None:
    run = Run(num_updates=10_000, max_staleness=1)
    run.learner.delay_s = 0.005
    control, going = await start(run)
    await until(run, 2)
    version = await control.checkpoint()
    assert run.watcher.saved == [version] == [control.status().last_checkpoint]
    await control.stop()
    await going


async def test_a_drained_worker_is_replaced() -> None:
    run = Run(num_workers=2, num_updates=200, max_staleness=1)
    control, going = await start(run)
    await until(run, 2)
    await control.drain("rollout-0")
    assert run.workers["rollout-0"].dead
    await going
    names = [worker.name for worker in control.status().workers if worker.role == "rollout"]
    assert names == ["rollout-1", "rollout-2"]
    with pytest.raises(UsageError, match="no worker is called 'rollout-0'"):
        await control.drain("rollout-0")


async def test_stop_ends_a_paused_run_too() -> None:
    run = Run(num_updates=100)
    control, going = await start(run)
    await until(run, 2)
    await control.pause()
    run.controller.stop()  # as a signal does
    async with asyncio.timeout(5):
        await going
    assert control.status().stopping
    assert run.watcher.saved == [run.controller.buffer.version]


async def test_the_status_is_plain_data() -> None:
    run = Run(num_updates=2)
    control, going = await start(run)
    await going
    status = asdict(control.status())
    assert status["policy_version"] == status["num_updates"] == status["last_checkpoint"] == 2
    assert status["workers"][0]["policy_version"] == 2
