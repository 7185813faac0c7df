"""A learner of two gloo ranks and two engines, brought together by the loop's own fleet, supervisor and weight sync."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.learner_ranks import first_of
from rayzero.services.fleet.learner_supervisor import LearnerSupervisor
from rayzero.services.fleet.remote import RemoteLearner, RemoteRolloutWorker
from rayzero.services.loop.canary import LIMITS, Canary
from rayzero.services.loop.weight_sync import SyncReport, WeightSync
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import DeadlineError, WorkerError
from rayzero.services.schema.interfaces import LearnerHandle, RolloutWorker
from rayzero.services.schema.messages import ChatMessage, GroupCompletions, GroupRequest, Prompt, Sampling
from rayzero.services.store.checkpoints import seal
from tests.actors_without_ray import ActorHere, ActorProcess
from tests.faulty_learner import FaultyLearner
from tests.unit.learner.kit import make_group

T = TypeVar("T")

RANKS, ENGINES = 2, 2
SYNC_S = 15.0
START_S = 180.0
PATIENCE_S = 300.0
"""Of a sync with all that it waits for: two attempts, and an engine or a learner that starts anew."""
TOLERANCE = 1e-4
"""Mean |Δ log p| a token in float32: both sides compute alike, in another order."""


def make_recipe(model: Path) -> Recipe:
    """Steps so large that each version differs from the one before by far more than rounding."""
    return Recipe.model_validate({
        "name": "streamed",
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"train": [{"kind": "function", "function": "rayzero.services.data.tasks.numbers:number_after"}]},
        "rollout": {
            "device": "cpu", "kv_cache_bytes": 2**27, "max_model_tokens": 512, "num_threads": 1,
            "on_weights": "keep_recompute", "sampling": {"max_tokens": 64},
        },
        "learner": {
            "optimizer": {"learning_rate": 1e-2}, "compute": {"num_threads": 1},
            "watch": {"kl_warn": 1e6, "kl_stop": 1e6, "ess_warn": 0, "ess_stop": 0},
        },
        "reward": {"rubrics": {"default": {"accuracy": {"kind": "math"}}}},
        "training": {"num_updates": 50, "groups_per_update": 2, "group_size": 4},
        "deadlines": {"sync_s": SYNC_S, "actor_start_s": START_S},
    })  # fmt: skip


class StreamedRun:
    """What a run has between its groups and its engines; the groups are random tokens."""

    def __init__(self, model: Path, folder: Path, *, share_memory: bool) -> None:
        """`share_memory` off: gloo serves both engines, as on other machines."""
        self.recipe, self.folder, self.share_memory = make_recipe(model), folder, share_memory
        self.version = 0
        self.weights = {0: model}
        """Where the weights of each version lie."""
        self.ranks: list[RemoteLearner] = []
        self._engines: list[ActorHere] = []
        self.fleet: Fleet[RolloutWorker] = Fleet("rollout", self._engine, limit=4, needs_weights=True, backoff_s=0.1)
        self.learner = LearnerSupervisor(self._learner, folder / "checkpoints", folder / "rollouts", backoff_s=0.1)
        canary = Canary(every_syncs=1, max_difference=LIMITS["float32"])
        self.sync = WeightSync(self.learner, self.fleet, deadline_s=SYNC_S, start_s=START_S, canary=canary)

    async def start(self) -> None:
        """Both engines serve version 0."""
        await self.fleet.start(ENGINES)
        await self.learner.start(None)
        assert (await self.broadcast()).num_workers == ENGINES

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(self.fleet.close(), self.learner.shutdown())
        await in_time(asyncio.gather(*(handle.gone() for handle in self._engines)))

    async def train(self) -> None:
        """One update of both ranks. A learner that dies after it must make it again: its checkpoint is older."""
        self.version += 1
        rng = np.random.default_rng(self.version)
        groups = [make_group(rng, [9, 7, 8, 5], [1, 0, 1, 0], group_id=number) for number in range(2)]
        self.sync.canary.learn(groups)
        await in_time(self.learner.update(groups, self.version))
        self.weights[self.version] = self.folder / "weights" / str(self.version)
        await in_time(self.learner.save_checkpoint(str(made(self.weights[self.version]))))

    async def broadcast(self) -> SyncReport:
        """The learner's version to all engines."""
        report = await in_time(self.sync.broadcast(self.version))
        checkpoint = made(self.folder / "checkpoints" / f"update_{self.version:06d}")
        await in_time(self.learner.save_checkpoint(str(checkpoint)))
        seal(checkpoint, {})
        return report

    async def refilled(self) -> None:
        """Until every engine that was lost is replaced by one that may take weights."""
        async with asyncio.timeout(START_S):
            while len(self.fleet.serving()) + len(self.fleet.joining()) < ENGINES:
                await asyncio.sleep(0.05)

    def workers(self) -> dict[str, RolloutWorker]:
        """Those that serve, by name."""
        return {slot.name: slot.live_worker for slot in self.fleet.serving()}

    def versions(self) -> dict[str, int]:
        """What each of them has proved to hold."""
        return {slot.name: slot.policy_version for slot in self.fleet.serving()}

    async def spoil_engine(self, name: str, kind: str, bucket: int) -> None:
        """Order a fault of one engine's process."""
        engine = engine_of(self.workers()[name])
        await engine._calls.ready().collective_rpc("order_fault", args=(kind, bucket))

    async def spoil_rank(self, rank: int, kind: str, at: int) -> None:
        """Order a fault of one rank of the learner."""
        await self.ranks[rank].call("order_fault", kind, at, deadline_s=SYNC_S)

    async def disagreement(self, worker: RolloutWorker) -> float:
        """Mean |Δ log p| between what an engine says when it samples, and what the ranks say of the same tokens."""
        made = await in_time(worker.generate(request(num_completions=4)))
        assert {(each.oldest_version, each.newest_version) for each in made.completions} == {(self.version,) * 2}
        scored = [await self.learner.logprobs(made.prompt_token_ids, each.token_ids) for each in made.completions]
        gaps = [each.rollout_logprobs - theirs for each, theirs in zip(made.completions, scored, strict=True)]
        return float(np.abs(np.concatenate(gaps)).mean())

    def check(self, made: GroupCompletions) -> None:
        """Every token of a group has the log-probability that the one version which it names gives it."""
        for completion in made.completions:
            for span in completion.version_spans:
                expected = logprobs_by(self.weights[span.policy_version], made.prompt_token_ids, completion.token_ids)
                gaps = np.abs(completion.rollout_logprobs - expected)[span.start : span.end]
                assert len(gaps) == 0 or gaps.mean() <= TOLERANCE, (made.worker, span, gaps)

    async def _learner(self) -> LearnerHandle:
        """As services/run/placement.py does it for ranks on GPUs."""
        names = ["learner", *(f"learner-{rank}" for rank in range(1, RANKS))]
        arguments = (self.recipe, self.recipe.model.path, self.share_memory)
        self.ranks = [
            RemoteLearner(name, ActorProcess(FaultyLearner, *arguments), self.recipe.deadlines) for name in names
        ]
        try:
            meeting = await self.ranks[0].call("meeting_point", RANKS, deadline_s=START_S)
            starts = [
                each.call("start", "cpu", rank, meeting, deadline_s=START_S) for rank, each in enumerate(self.ranks)
            ]
            await asyncio.gather(*starts)
        except BaseException:
            await asyncio.gather(*(rank.shutdown() for rank in self.ranks))
            raise
        return first_of(self.ranks)

    async def _engine(self, name: str) -> RolloutWorker:
        """Even ones load in their pause, odd ones stage beside generation: one sync serves both."""
        loading = "streamed" if int(name.rpartition("-")[2]) % 2 == 0 else "staged"
        settings = self.recipe.rollout.model_copy(update={"weight_loading": loading})
        spec = EngineSpec(model_path=self.recipe.model.path, dtype="float32", settings=settings)
        engine = RolloutEngine(name, spec, deadline_s=self.recipe.deadlines.sync_s)
        self._engines.append(ActorHere(engine))
        worker = RemoteRolloutWorker(name, self._engines[-1], self.recipe.deadlines)
        await worker.call("start", deadline_s=START_S)
        return worker


class Traffic:
    """Groups that the engines generate all the while, as many at a time as there are engines."""

    def __init__(self, fleet: Fleet[RolloutWorker]) -> None:
        self.made: list[GroupCompletions] = []
        self._fleet = fleet

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Both engines have work before the block begins, and after it ends."""
        tasks = [asyncio.create_task(self._ask()) for _ in range(2 * ENGINES)]
        try:
            await self._one_of_each()
            yield
            await self._one_of_each()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one_of_each(self) -> None:
        """Until each engine that serves has finished a group that it had not before."""
        before = len(self.made)
        async with asyncio.timeout(PATIENCE_S):
            while not {slot.name for slot in self._fleet.serving()} <= {each.worker for each in self.made[before:]}:
                await asyncio.sleep(0.02)

    async def _ask(self) -> None:
        while True:
            try:
                async with self._fleet.lease(PATIENCE_S) as slot:
                    self.made.append(await slot.live_worker.generate(request()))
            except (WorkerError, DeadlineError):
                await asyncio.sleep(0.02)  # its engine is lost: the lease has reported it


NUMBERS = itertools.count()


def request(num_completions: int = 2) -> GroupRequest:
    """A group like no other."""
    number = next(NUMBERS)
    prompt = Prompt(prompt_id="sum", messages=(ChatMessage(role="user", content=f"What is {number} + 25?"),), answer="")
    sampling = Sampling(num_completions=num_completions, max_tokens=48, seed=number)
    return GroupRequest(group_id=number, prompt=prompt, sampling=sampling)


async def in_time(call: Awaitable[T]) -> T:
    """A test never waits without end."""
    async with asyncio.timeout(PATIENCE_S):
        return await call


def engine_of(worker: Any) -> RolloutEngine:
    """Behind a worker's handle."""
    engine = worker.handle.actor
    assert isinstance(engine, RolloutEngine)
    return engine


def made(folder: Path) -> Path:
    """The folder, which is there now."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def policy_in(folder: Path) -> PreTrainedModel:
    """The model of one version, as transformers computes it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logprobs_by(folder: Path, prompt: NDArray[np.int32], completion: NDArray[np.int32]) -> NDArray[np.float32]:
    """[T] of a completion after its prompt."""
    tokens = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logits = policy_in(folder)(tokens[None]).logits[0, :-1].float()
    chosen = logits.log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
    return np.asarray(chosen[len(chosen) - len(completion) :])
