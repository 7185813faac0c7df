"""Who is killed when: the book of kills, and the agent on a run of fakes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.chaos import agent as agent_file
from rayzero.services.chaos.agent import ChaosAgent
from rayzero.services.chaos.strikes import KINDS, PHASES, FaultLog
from rayzero.services.loop.run_control import RunControl
from tests.unit.services.loop.test_controller import Run


def test_every_kind_is_killed_in_every_phase_before_any_a_second_time(tmp_path: Path) -> None:
    book, chance = FaultLog(tmp_path / "strikes.jsonl"), random.Random(3)
    for _ in range(len(KINDS) * len(PHASES)):
        book.write(*book.next(chance), version=1, victims=[1])
    assert set(book.counts().values()) == {1}
    assert len(book.counts()) == len(KINDS) * len(PHASES)
    assert len(book.table().rows) == len(KINDS)


@pytest.fixture
def victim() -> Any:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("phase", "delay_s"),
    [
        ("generation", 0.002),
        ("update", 0.002),
        pytest.param("update", 0.5, id="an update much shorter than the delay at first"),
        ("checkpoint", 0.002),
    ],
)
async def test_the_agent_kills_in_the_middle_of_the_phase_and_writes_it_down_first(
    tmp_path: Path, victim: subprocess.Popen[bytes], phase: str, delay_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(num_updates=10_000, max_staleness=1)
    often = run.recipe.checkpoint.model_copy(update={"every_updates": 2})
    run.controller.recipe = run.recipe.model_copy(update={"checkpoint": often})
    run.learner.delay_s = 0.01
    await run.start()
    slot = run.rewarders.slots[0]
    slot.worker.pid = victim.pid  # type: ignore[misc,union-attr]
    for worker in run.workers.values():
        worker.on_generate = lambda request: 0.01
    original = run.watcher.save

    async def save(*arguments: Any) -> None:
        await asyncio.sleep(0.01)
        await original(*arguments)

    run.watcher.save = save  # type: ignore[method-assign,assignment]
    monkeypatch.setattr(agent_file, "DELAYS_S", dict.fromkeys(PHASES, delay_s))
    book = FaultLog(tmp_path / "strikes.jsonl")
    agent = ChaosAgent(book, tmp_path / "nodes.json", tmp_path / "end", random.Random(0), seconds=60)
    going = asyncio.create_task(run.controller.run())
    control = RunControl(run.controller)
    async with asyncio.timeout(20):
        while not await agent._strike(control, "reward", phase):
            pass
    assert victim.wait(timeout=5) == -9
    (row,) = book.rows()
    assert (row["kind"], row["phase"], row["pids"]) == ("reward", phase, [victim.pid])
    await control.stop()
    await going


async def test_the_agent_stops_the_run_when_its_time_is_over(tmp_path: Path) -> None:
    run = Run(num_updates=10_000)
    await run.start()
    book, end = FaultLog(tmp_path / "strikes.jsonl"), tmp_path / "end"
    agent = ChaosAgent(book, tmp_path / "none", end, random.Random(0), seconds=0)
    attending = asyncio.create_task(agent.attend(RunControl(run.controller)))
    async with asyncio.timeout(20):
        await run.controller.run()
    await attending
    assert 0 < run.controller.buffer.version < 10_000


def test_a_node_goes_down_as_a_whole(tmp_path: Path) -> None:
    parent = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    node = subprocess.Popen([sys.executable, "-c", parent + "print(flush=True); time.sleep(60)"], stdout=-1)
    assert node.stdout is not None
    node.stdout.readline()
    (tmp_path / "nodes.json").write_text(json.dumps([node.pid]))
    agent = ChaosAgent(FaultLog(tmp_path / "s"), tmp_path / "nodes.json", tmp_path / "end", random.Random(0), 0)
    victims = agent._victims(None, "node")  # type: ignore[arg-type]
    assert victims[0] == node.pid and len(victims) == 2
    for pid in victims:
        os.kill(pid, 9)
    node.communicate()
