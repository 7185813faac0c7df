"""Two learner ranks over gloo and two engines: a streamed sync with every fault on its way, and nothing is lost.

One engine loads each bucket in its pause, the other stages the broadcast beside generation. The learner's ranks are
`LearnerActor`s in processes of their own, spoken to over pipes in Ray's place; all else is what a run has.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio

from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.learner_ranks import LearnerRanks
from rayzero.services.fleet.remote import RemoteLearner
from rayzero.services.loop.canary import Canary
from rayzero.services.loop.weight_sync import WeightSync
from rayzero.services.schema.addresses import free_port
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.training import DeadlineSettings
from rayzero.services.schema.interfaces import RolloutWorker
from rayzero.services.schema.messages import Rendezvous
from tests.fakes import make_group
from tests.integration.test_weight_sync import SETTINGS, request
from tests.models import build_tiny_model

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

NUM_RANKS = 2
BUCKET_BYTES = 2**15
PATIENCE_S = 240.0


def recipe(model: Path) -> Recipe:
    return Recipe.model_validate({
        "name": "streamed",
        "model": {"path": str(model), "dtype": "bfloat16"},
        "data": {"train": [{"kind": "function", "function": "rayzero.services.data.tasks.numbers:number_after"}]},
        "rollout": {"device": "cpu", "max_model_tokens": 512, "sampling": {"max_tokens": 64}},
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "learner": {
            "optimizer": {"learning_rate": 1e-2},
            "watch": {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0},
        },
        "training": {"num_updates": 20, "groups_per_update": 2, "group_size": 4},
        "deadlines": {"sync_s": 60},
    })  # fmt: skip


class RankProcess(RemoteLearner):
    """One rank: a process with a `LearnerActor`."""

    def __init__(self, rank: int, made: Recipe, model: Path) -> None:
        super().__init__(f"learner-{rank}", None, DeadlineSettings())
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve_rank, args=(theirs, made, str(model)), daemon=True)
        self._process.start()
        self.under_way: list[str] = []
        self._numbers, self._waiting = count(), dict[int, asyncio.Future[Any]]()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe.fileno(), self._answered)

    async def call(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> Any:
        number, answer = next(self._numbers), self._loop.create_future()
        self._waiting[number] = answer
        self.under_way.append(method)
        self._pipe.send((number, method, args))
        try:
            return await asyncio.wait_for(answer, PATIENCE_S)
        finally:
            self.under_way.remove(method)

    def _answered(self) -> None:
        number, failed, value = self._pipe.recv()
        answer = self._waiting.pop(number)
        if not answer.done():
            answer.set_exception(value) if failed else answer.set_result(value)

    async def shutdown(self) -> None:
        self._loop.remove_reader(self._pipe.fileno())
        self._process.kill()


def serve_rank(pipe: Connection, made: Recipe, model: str) -> None:
    """The process of a rank. `fault` arms one for the next stream."""
    import ray.util

    from rayzero.learner.actor import LearnerActor
    from rayzero.learner.broadcast import sender
    from rayzero.learner.broadcast.stream import BucketStream

    ray.util.get_node_ip_address = lambda: "127.0.0.1"  # type: ignore[attr-defined]
    sender.BUCKET_BYTES["cpu"] = BUCKET_BYTES
    fill, armed = BucketStream.fill, dict[str, str]()

    def faulty(stream: Any, index: int, tensors: Any) -> None:
        fill(stream, index, tensors)
        if armed.get("fault") == "slow":
            time.sleep(0.3)
        if index == 2 and armed.get("fault") in ("flip", "tear"):
            bucket = stream.bucket(index)
            if armed.pop("fault") == "flip":
                bucket[10] ^= 4
            else:
                bucket[len(bucket) // 2 :] = 0

    BucketStream.fill = faulty  # type: ignore[method-assign]
    actor = LearnerActor(made, model)

    async def serve() -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def answer(number: int, method: str, args: tuple[Any, ...]) -> None:
            try:
                if method == "fault":
                    armed["fault"] = args[0]
                    pipe.send((number, False, None))
                else:
                    pipe.send((number, False, await getattr(actor, method)(*args)))
            except Exception as error:
                pipe.send((number, True, error))

        while True:
            received = await asyncio.to_thread(pipe.recv)
            tasks.add(asyncio.create_task(answer(*received)))

    asyncio.run(serve())


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(engine_environment(SETTINGS))
    yield
    os.environ.clear()
    os.environ.update(before)


class Run:
    """The ranks as one learner, the engines as a fleet, and what syncs them."""

    def __init__(self, model: Path) -> None:
        self.model, made = model, recipe(model)
        self.ranks = [RankProcess(rank, made, model) for rank in range(NUM_RANKS)]
        self.learner = LearnerRanks(self.ranks)
        self.fleet: Fleet[RolloutWorker] = Fleet("rollout", self.spawn, limit=8, needs_weights=True)
        self.canary = Canary(every_syncs=1, max_difference=0.1, max_model_tokens=512)
        self.sync = WeightSync(self.learner, self.fleet, deadline_s=60.0, start_s=PATIENCE_S, canary=self.canary)
        self.version = 0

    async def spawn(self, name: str) -> RolloutWorker:
        loading = "streamed" if int(name.rpartition("-")[2]) % 2 == 0 else "staged"
        settings = SETTINGS.model_copy(update={"weight_loading": loading})
        spec = EngineSpec(model_path=str(self.model), dtype="bfloat16", settings=settings)
        engine = RolloutEngine(name, spec, deadline_s=30.0)
        await engine.start()
        return engine

    async def start(self) -> None:
        meeting = Rendezvous(host="127.0.0.1", port=free_port("127.0.0.1"), world_size=NUM_RANKS)
        starts = [each.call("start", "cpu", rank, meeting, deadline_s=0) for rank, each in enumerate(self.ranks)]
        await asyncio.gather(self.fleet.start(2), *starts)
        self.canary.learn([make_group(0)])

    async def update(self) -> None:
        """One update by both ranks, and its weights to both engines, which the canary tries."""
        self.version += 1
        batch = [make_group(2 * self.version + each, rewards=(0.0, 1.0, 1.0, 0.0)) for each in range(2)]
        await self.learner.update(batch, self.version)
        report = await self.sync.broadcast(self.version)
        assert report.policy_version == self.version
        while len(self.fleet.serving()) < 2:  # a replacement comes up and is brought to the version
            async with asyncio.timeout(PATIENCE_S):
                await self.fleet.wait_for_joining()
            await self.sync.refit(self.version)
        assert {slot.policy_version for slot in self.fleet.serving()} == {self.version}

    async def end(self) -> None:
        await self.fleet.close()
        await self.learner.shutdown()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    patch = pytest.MonkeyPatch()

    async def as_it_is(value: Any) -> Any:
        return value

    patch.setattr("rayzero.services.fleet.learner_ranks.in_object_store", as_it_is)
    run = Run(build_tiny_model(tmp_path_factory.mktemp("model"), tied=False, dtype="bfloat16"))
    try:
        await run.start()
        yield run
    finally:
        await run.end()
        patch.undo()


async def served(run: Run) -> Mapping[str, float]:
    """Mean gap of each engine's log-probabilities to the ranks', on what it samples now."""
    gaps = {}
    for slot in run.fleet.serving():
        made = await slot.live_worker.generate(request(group_id=run.version))
        for completion in made.completions:
            ours = await run.learner.logprobs(made.prompt_token_ids, completion.token_ids)
            gaps[slot.name] = float(np.abs(ours - completion.rollout_logprobs).mean())
            assert completion.oldest_version == run.version
    return gaps


async def test_versions_arrive_at_both_engines(run: Run) -> None:
    for _ in range(2):
        await run.update()
        assert max((await served(run)).values()) < 0.05
    assert (run.sync.failures, run.fleet.restarts) == (0, 0)


@pytest.mark.parametrize("fault", ["flip", "tear"])
async def test_a_bad_bucket_serves_nowhere_and_the_version_comes_again(run: Run, fault: str) -> None:
    failures, restarts = run.sync.failures, run.fleet.restarts
    await run.ranks[0].call("fault", fault, deadline_s=0)
    await run.update()
    assert run.sync.failures == failures + 1 and run.fleet.restarts == restarts + 2, "both found it"
    assert max((await served(run)).values()) < 0.05


@pytest.mark.parametrize("loads_in_pause", [True, False])
async def test_an_engine_killed_within_a_broadcast_costs_only_itself(run: Run, loads_in_pause: bool) -> None:
    ways = {bool(worker_of(slot)._settings.loads_in_pause): slot for slot in run.fleet.serving()}
    doomed, other = ways[loads_in_pause], ways[not loads_in_pause]
    running = asyncio.create_task(other.live_worker.generate(request(group_id=900, max_tokens=400)))
    restarts, before = run.fleet.restarts, doomed.name
    await run.ranks[0].call("fault", "slow", deadline_s=0)
    updating = asyncio.create_task(run.update())
    pid = engine_pid(doomed.live_worker)
    while run.sync._members == () or not await in_the_middle(run):
        await asyncio.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    await run.ranks[0].call("fault", "", deadline_s=0)
    await updating
    assert run.fleet.restarts == restarts + 1
    assert other in run.fleet.serving() and before not in {slot.name for slot in run.fleet.serving()}
    made = await running
    assert len(made.completions) == 4 and all(c.num_tokens for c in made.completions), "what ran there went on"
    assert max((await served(run)).values()) < 0.05


def worker_of(slot: Any) -> Any:
    return slot.live_worker


async def in_the_middle(run: Run) -> bool:
    """A while after the ranks have begun to stream: eight slow buckets and more take seconds."""
    if not any(method == "broadcast_weights" for method in run.ranks[0].under_way):
        return False
    await asyncio.sleep(1.0)
    return True


def engine_pid(worker: Any) -> int:
    """Of vLLM's own process below a worker."""
    (process,) = worker._calls.engine.engine_core.resources.engine_manager.processes
    assert psutil.pid_exists(process.pid)
    return int(process.pid)
