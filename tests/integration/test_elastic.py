"""A live run on real Ray and vLLM: from one rollout worker to two and back, while it trains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from services.json_lines import read_lines
from services.ledger import audit
from services.run import INTERRUPTED, train
from services.run_control import RunControl, RunStatus
from tests.integration.test_loop import RECIPE, SMALL

CHANGES = [
    "training.num_updates=100000",
    "training.max_staleness=1",
    "evaluation.every_updates=0",
    "checkpoint.every_updates=0",
    "rollout.canary_every_syncs=2",
    "rollout.max_workers=3",
]

pytestmark = pytest.mark.timeout(900)


class Operator:
    """Scales the run up and down again, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[RunStatus] = []
        self.refused = ""
        self.saved = -1
        self.stood_still = False

    async def attend(self, control: RunControl) -> None:
        await self.until(control, lambda status: status.policy_version >= 2)
        await control.scale(rollout=2, reward=2)
        await self.until(control, lambda status: serving(status) == {"rollout": 2, "reward": 2})
        await self.updates(control, 3)
        try:
            await control.scale(rollout=4)
        except Exception as error:
            self.refused = str(error)
        await control.pause()
        paused = control.status().policy_version
        await asyncio.sleep(1.0)
        self.stood_still = control.status().policy_version == paused
        self.saved = await control.checkpoint()
        await control.resume()
        await control.drain("rollout-0")
        await control.scale(rollout=1, reward=1)
        await self.until(control, lambda status: len(status.workers) == 2)
        await self.updates(control, 2)
        await control.stop()

    async def updates(self, control: RunControl, number: int) -> None:
        wanted = control.status().policy_version + number
        await self.until(control, lambda status: status.policy_version >= wanted)

    async def until(self, control: RunControl, reached: Callable[[RunStatus], bool]) -> None:
        async with asyncio.timeout(300):
            while not reached(control.status()):
                await asyncio.sleep(0.05)
        self.seen.append(control.status())


def serving(status: RunStatus) -> dict[str, int]:
    states = [worker.role for worker in status.workers if worker.state == "serving"]
    return {role: states.count(role) for role in ("rollout", "reward")}


def test_workers_join_and_leave_a_live_run(tmp_path: Path) -> None:
    operator = Operator()
    run = tmp_path / "run"
    code = train(Path(RECIPE), [*SMALL, *CHANGES], tmp_path, run, fresh=False, companion=operator.attend)
    assert code == INTERRUPTED
    assert "the recipe allows 1 to 3" in operator.refused
    assert operator.stood_still
    assert operator.saved >= 5
    grown, last = operator.seen[1], operator.seen[-1]
    assert serving(grown) == {"rollout": 2, "reward": 2}
    assert serving(last) == {"rollout": 1, "reward": 1}
    assert all(worker.pid is not None and worker.node for worker in last.workers)
    found = audit(run)
    assert found.problems == () and found.updates >= last.policy_version
    workers = {line["worker"] for file in run.glob("rollouts/update_*.jsonl") for line in read_lines(file)}
    assert {"rollout-0", "rollout-1"} <= workers
    rows = read_lines(run / "metrics.jsonl")
    assert {1, 2} <= {row["num_rollout_workers"] for row in rows}
    assert max(row["staleness_max"] for row in rows) <= 1
    fresh = [row["kl_rollout"] for row in rows if row["staleness_max"] == 0 and "kl_rollout" in row]
    assert max(fresh, default=0.0) < 1e-6
