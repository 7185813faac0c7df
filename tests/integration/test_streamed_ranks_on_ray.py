"""As test_streamed_ranks.py, on Ray: real placement, actors and handles; a rank and a whole engine die at once."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import rayzero.rollout_workers.actor
from rayzero.services.fleet.learner_ranks import first_of
from rayzero.services.fleet.remote import RemoteLearner, RemoteRolloutWorker
from rayzero.services.run.placement import Placement
from rayzero.services.run.ray_session import RaySession
from rayzero.services.schema.interfaces import LearnerHandle, RolloutWorker
from tests.faulty_actor import FaultyRolloutActor
from tests.faulty_learner import FaultyLearner
from tests.models import build_tiny_model
from tests.source_tree import ROOT
from tests.streamed_run import ENGINES, RANKS, TOLERANCE, StreamedRun, Traffic

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


class RunOnRay(StreamedRun):
    """Its actors are placed as those of any run; the ranks, which a recipe gives GPUs alone, on CPUs."""

    def __init__(self, model: Path, folder: Path, *, share_memory: bool) -> None:
        super().__init__(model, folder, share_memory=share_memory)
        cluster = self.recipe.cluster.model_copy(update={"environment": {"PYTHONPATH": str(ROOT)}, "num_cpus": 8})
        self.recipe = self.recipe.model_copy(update={"cluster": cluster})
        self.placement = Placement(self.recipe, model, folder / "logs")

    async def _learner(self) -> LearnerHandle:
        options = {"num_cpus": 1, "runtime_env": {"env_vars": self.placement._environment}}
        arguments = (self.recipe, self.recipe.model.path, self.share_memory)
        names = ["learner", *(f"learner-{rank}" for rank in range(1, RANKS))]
        self.ranks = [self.placement._create(name, RemoteLearner, FaultyLearner, options, arguments) for name in names]
        deadline_s = self.recipe.deadlines.actor_start_s
        meeting = await self.ranks[0].call("meeting_point", RANKS, deadline_s=deadline_s)
        await asyncio.gather(
            *(self.placement._started(each, options, "cpu", rank, meeting) for rank, each in enumerate(self.ranks))
        )
        return first_of(self.ranks)

    async def _engine(self, name: str) -> RolloutWorker:
        return await self.placement.rollout_worker(name)

    async def spoil_engine(self, name: str, kind: str, bucket: int) -> None:
        worker: Any = self.workers()[name]
        await worker.call("order_fault", kind, bucket, deadline_s=self.recipe.deadlines.sync_s)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rayzero.rollout_workers.actor, "RolloutActor", FaultyRolloutActor)
    return build_tiny_model(tmp_path / "model")


async def test_a_rank_and_an_engine_die_in_one_sync(model: Path, tmp_path: Path) -> None:
    run = RunOnRay(model, tmp_path / "run", share_memory=False)
    session = RaySession(run.recipe)
    session.start()
    try:
        await run.start()
        await run.train()
        assert (await run.broadcast()).num_workers == ENGINES
        victim, healthy = run.workers()
        await run.train()
        traffic = Traffic(run.fleet)
        async with traffic.flowing():
            await run.spoil_rank(1, "killed", 9)
            await run.spoil_engine(victim, "killed", 3)
            await run.broadcast()
        for made in traffic.made:
            run.check(made)
        assert run.learner.revivals == 1 and healthy in run.workers()
        await run.refilled()
        worker: Any = run.workers()[healthy]
        assert isinstance(worker, RemoteRolloutWorker) and worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)  # the actor itself; its engine's process ends with it
        await run.train()
        await run.broadcast()
        await run.refilled()
        await run.train()
        assert (await run.broadcast()).num_workers == ENGINES
        for each in run.workers().values():
            assert await run.disagreement(each) <= TOLERANCE
    finally:
        await run.close()
        session.stop()
