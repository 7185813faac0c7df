"""Starts every actor: with which resources, which environment, which log file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import ray

from rayzero.services.fleet.actor_options import hiding_gpus, thread_environment, with_threads
from rayzero.services.fleet.gpu_bundles import ENGINE, LEARNER, REWARD, ROLES, reward_cpus
from rayzero.services.fleet.learner_ranks import first_of
from rayzero.services.fleet.local_ray import LOOPBACK_ENVIRONMENT
from rayzero.services.fleet.placement_groups import GpuReservation, cluster_nodes
from rayzero.services.fleet.remote import (
    RemoteActor,
    RemoteEnvironmentWorker,
    RemoteLearner,
    RemoteRewardWorker,
    RemoteRolloutWorker,
)
from rayzero.services.planning.memory_plan import with_plan
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.run.preflight import check_memory, on_device
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.cpu_process import cpu_environment
from rayzero.services.schema.devices import Device
from rayzero.services.schema.errors import (
    ActorLostError,
    ActorStartError,
    DeadlineError,
    RayzeroError,
    WorkerError,
    WorkerLostError,
)
from rayzero.services.schema.interfaces import LearnerHandle
from rayzero.services.schema.reports import NO_REPORTS, OFFLINE

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=RemoteActor)
W = TypeVar("W", RemoteRolloutWorker, RemoteRewardWorker)
T = TypeVar("T")
Args = tuple[Any, ...]
METRICS_S = 10.0
GROUPS_PER_REWARD_WORKER = 64
"""Groups that a reward worker holds at a time: it scores side by side, and sleeps while a judge or a program runs."""

LOST_WAITS_S = (2.0, 5.0)
"""Before an actor that was lost while it started is started again: Ray still places actors on a node that has died."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Spawns the run's actors; every method returns a ready worker or raises `ActorStartError`."""

    recipe: Recipe
    model_path: Path
    logs: Path
    device: Device = "cpu"
    """What learner and engines compute on."""
    roles: tuple[str, ...] = ROLES
    """Who will be spawned: for whom GPUs are reserved."""
    _slots: list[GpuReservation] = field(default_factory=list)
    _reserving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def learner(self) -> LearnerHandle:
        """The learner, its model loaded; all its ranks where it has several GPUs."""
        from rayzero.learner.actor import LearnerActor

        recipe = on_device(self.recipe, self.device)
        options = {
            "num_cpus": 1,
            "resources": recipe.cluster.learner_resources,
            "runtime_env": {"env_vars": self._environment},
        }
        if self.device == "cuda":
            return await despite_losses(lambda: self._gpu_learner(recipe, options))
        options["runtime_env"] = {"env_vars": self._environment | cpu_environment()}
        options = with_threads(options, self._learner_threads())
        return await self._spawn(
            "learner", RemoteLearner, LearnerActor, options, (recipe, str(self.model_path)), self.device
        )

    async def _gpu_learner(self, recipe: Recipe, options: dict[str, Any]) -> LearnerHandle:
        from rayzero.learner.actor import LearnerActor

        recipe = self._planned(recipe)
        slots = await self._reserved()
        ranks, arguments = [], (recipe, str(self.model_path))
        for rank in range(recipe.cluster.learner_gpus):
            name = "learner" if rank == 0 else f"learner-{rank}"
            placed = with_threads(options | slots.learner_options(rank), self._learner_threads(slots, rank))
            ranks.append(self._create(name, RemoteLearner, LearnerActor, placed, arguments))
        try:
            meeting = None
            if len(ranks) > 1:
                deadline_s = recipe.deadlines.actor_start_s
                meeting = await ranks[0].call("meeting_point", len(ranks), deadline_s=deadline_s)
            if recipe.cluster.shares_gpu and len(ranks) > 1:
                await slots.share_gpus_of([await self._gpu_of(each) for each in ranks])
            await asyncio.gather(
                *(self._started(each, options, self.device, rank, meeting) for rank, each in enumerate(ranks))
            )
        except BaseException:
            await asyncio.gather(*(rank.shutdown() for rank in ranks), return_exceptions=True)
            raise
        return first_of(ranks)

    def _planned(self, recipe: Recipe) -> Recipe:
        """With what the memory plan has chosen, the same for learner and engines."""
        if LEARNER not in self.roles:
            return recipe  # engines alone are sent nothing
        plan = check_memory(recipe, read_shape(self.model_path), recipe.cluster.learner_gpus)
        return recipe if plan is None else with_plan(recipe, plan)

    async def _gpu_of(self, rank: RemoteActor) -> str:
        """The GPU that a rank was given, as its node numbers it."""
        deadline_s = self.recipe.deadlines.actor_start_s
        reference = rank.handle.__ray_call__.remote(reserved_gpu)
        try:
            gpu: str = await asyncio.wait_for(asyncio.wrap_future(reference.future()), deadline_s)
        except TimeoutError:
            raise ActorStartError(f"{rank.name} was not placed within {deadline_s:g} s") from None
        except ray.exceptions.RayError as error:
            raise ActorLostError(f"{rank.name} was lost: {str(error).strip().splitlines()[-1][:500]}") from None
        return gpu

    async def rollout_worker(self, name: str) -> RemoteRolloutWorker:
        """A rollout worker, its engine up."""
        from rayzero.rollout_workers.actor import RolloutActor, engine_environment

        recipe = on_device(self.recipe, self.device)
        if self.device == "cuda":
            recipe = self._planned(recipe)
        options = {
            "num_cpus": 1,
            "resources": recipe.cluster.rollout_resources,
            "runtime_env": {"env_vars": self._environment | engine_environment(recipe.rollout)},
            "max_concurrency": 10_000,  # each episode of an agent is watched by one call
        }
        arguments = (recipe, str(self.model_path), name)
        worker = await self._placed(ENGINE, name, RemoteRolloutWorker, RolloutActor, options, arguments)
        local = recipe.cluster.address is None
        with contextlib.suppress(RayzeroError):  # an engine whose metrics cannot be read still serves
            worker.metrics_target = await worker.call("serve_metrics", local, deadline_s=METRICS_S)
        return worker

    async def reward_worker(self, name: str) -> RemoteRewardWorker:
        """A reward worker, its children forked."""
        from rayzero.rewards.actor import RewardActor

        options = {
            "num_cpus": reward_cpus(self.recipe),
            "resources": self.recipe.cluster.reward_resources,
            "runtime_env": {"env_vars": NO_REPORTS | thread_environment(1)},
            "max_concurrency": 1000,
        }
        return await self._placed(REWARD, name, RemoteRewardWorker, RewardActor, options, (self.recipe.reward,))

    async def environment_worker(self, name: str) -> RemoteEnvironmentWorker:
        """An environment worker, one environment made."""
        from rayzero.rewards.environments.actor import EnvironmentActor

        settings, cluster = self.recipe.environment, self.recipe.cluster
        if settings is None:
            raise ActorStartError("the recipe has no environment")
        options = {
            "num_cpus": 0 if cluster.address is None else settings.num_cpus_per_worker,
            "resources": cluster.environment_resources,
            "runtime_env": {"env_vars": NO_REPORTS | OFFLINE | thread_environment(1)},
            "max_concurrency": 10_000,
        }
        return await self._spawn(name, RemoteEnvironmentWorker, EnvironmentActor, options, (settings,))

    @property
    def _environment(self) -> dict[str, str]:
        """Of the learner and the engines; what the recipe says comes last."""
        own = LOOPBACK_ENVIRONMENT if self.recipe.cluster.address is None else {}
        return NO_REPORTS | OFFLINE | own | self.recipe.cluster.environment

    @property
    def _with_gpus(self) -> tuple[str, ...]:
        """The roles among its own that have GPUs."""
        rewards = self.recipe.reward.num_gpus_per_worker > 0
        return tuple(role for role in self.roles if (rewards if role == REWARD else self.device == "cuda"))

    def _learner_threads(self, slots: GpuReservation | None = None, rank: int = 0) -> int:
        """Threads of one rank: its part of its node's cores, not of those of the machine that the driver is on."""
        recipe = self.recipe
        if recipe.learner.compute.num_threads is not None:
            return recipe.learner.compute.num_threads
        if recipe.cluster.address is None:
            # A local Ray offers more CPUs than the machine has, so that every actor is placed.
            return max(1, (os.cpu_count() or 1) // (recipe.cluster.learner_gpus if slots else 1))
        if slots is not None:
            return slots.learner_cores(rank)
        suitable = [node.num_cpus for node in cluster_nodes() if node.offers(recipe.cluster.learner_resources)]
        return max(1, int(min((cpus for cpus in suitable if cpus), default=1)))

    async def _placed(
        self, role: str, name: str, wrapper: Callable[..., W], actor_class: type, options: dict[str, Any], args: Args
    ) -> W:
        """An engine or a reward worker, on GPUs where its role has some: they are free again when it ends."""
        if role not in self._with_gpus:
            return await self._spawn(name, wrapper, actor_class, options, args)
        slot, release = await (await self._reserved()).take(role)
        try:
            worker = await self._spawn(name, wrapper, actor_class, options | slot, args)
        except BaseException:
            release()
            raise
        worker.release = release
        return worker

    async def _spawn(
        self, name: str, wrapper: Callable[..., A], actor_class: type, options: dict[str, Any], args: Args, *start: Any
    ) -> A:
        """Placed and ready; `args` are its constructor's, `start` its method's."""

        async def attempt() -> A:
            actor = self._create(name, wrapper, actor_class, options, args)
            await self._started(actor, options, *start)
            return actor

        return await despite_losses(attempt)

    def _create(
        self, name: str, wrapper: Callable[..., A], actor_class: type, options: dict[str, Any], args: Args
    ) -> A:
        """The actor, not yet placed."""
        handle = ray.remote(actor_class).options(max_restarts=0, **hiding_gpus(options)).remote(*args)
        return wrapper(name, handle, self.recipe.deadlines)

    async def _started(self, actor: RemoteActor, options: dict[str, Any], *args: Any) -> None:
        """Placed and ready, or ended."""
        deadline_s, name, handle = self.recipe.deadlines.actor_start_s, actor.name, actor.handle
        try:
            await self._ready(actor, handle, deadline_s, *args)
        except RayzeroError as error:
            await actor.shutdown()
            if isinstance(error, DeadlineError):
                raise ActorStartError(
                    f"{name} was not ready within {deadline_s:g} s: {_why_pending(options)}"
                ) from None
            kind = ActorLostError if isinstance(error, WorkerLostError) else ActorStartError
            raise kind(f"{name} could not start: {error}\n  its log: {self.logs / f'{name}.log'}") from None
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                ray.kill(handle)
            raise

    async def _reserved(self) -> GpuReservation:
        """The run's GPUs, reserved when the first actor asks for one: all of them or none."""
        async with self._reserving:
            if not self._slots:
                self._slots.append(await GpuReservation.reserve(self.recipe, self._with_gpus))
            return self._slots[0]

    async def _ready(self, actor: RemoteActor, handle: Any, deadline_s: float, *args: Any) -> None:
        log = str(self.logs / f"{actor.name}.log")
        redirected = handle.__ray_call__.remote(redirect_output, log)
        try:
            actor.pid, actor.node = await asyncio.wait_for(asyncio.wrap_future(redirected.future()), deadline_s)
        except TimeoutError:
            raise DeadlineError(f"{actor.name} was not placed within {deadline_s:g} s") from None
        except ray.exceptions.RayError as error:
            # What fails in its constructor, an import say, would fail again.
            kind = WorkerError if getattr(error, "actor_init_failed", False) else WorkerLostError
            raise kind(str(error).strip().splitlines()[-1][:500]) from None
        await actor.call("start", *args, deadline_s=deadline_s)


async def despite_losses(start: Callable[[], Awaitable[T]]) -> T:
    """What `start` returns. When the actor is lost on the way, because its node went down, it is started once more.

    Raises:
        ActorStartError: it could not start, or was lost every time.
    """
    for wait_s in LOST_WAITS_S:
        try:
            return await start()
        except ActorLostError as error:
            logger.warning("%s; started again in %g s", str(error).splitlines()[0], wait_s)
            await asyncio.sleep(wait_s)
    return await start()


def reserved_gpu(_actor: object) -> str:
    """Runs in the actor's process: the one GPU that Ray gave it."""
    (gpu,) = ray.get_gpu_ids()
    return str(gpu)


def redirect_output(_actor: object, path: str) -> tuple[int, str]:
    """Runs in the actor's process: all it and its children print goes to one file from here on. Says where it lives:
    process id and Ray's id of the node."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)  # reward workers may have a volume of their own there
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    return os.getpid(), ray.get_runtime_context().get_node_id()


def _why_pending(options: dict[str, Any]) -> str:
    wanted = {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
    free = ray.available_resources()
    lacking = [
        f"{name} {amount:g} (free: {free.get(name, 0):g})"
        for name, amount in wanted.items()
        if amount > free.get(name, 0)
    ]
    return f"no node has {', '.join(lacking)}" if lacking else "it was placed, but is still loading; see its log"
