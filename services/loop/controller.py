"""The main loop: the data path, drawn once.

    prompts ─► admit ─► run (rollout worker ─► reward worker) ─► buffer ─► take ─► learner.update
       ▲                                                                                  │
       └───────────────── retire ◄── evaluate, checkpoint ◄── sync (weights to every engine) ◄┘

The loops share the buffer. `Admission.run` gives every prompt that has room a task that runs it; `_train_loop`
takes batches and turns them into versions. At max_staleness 0 a version's groups are admitted only after its weights
are served, so the two take turns; above 0 they overlap, and the buffer holds the bound. `_join_loop` brings new
workers to the current weights, `_watch_loop` ends a run in which nothing moves any more, with a report.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.activity import Activity, Phase
from rayzero.services.loop.admission import Admission
from rayzero.services.loop.batch_metrics import with_kl
from rayzero.services.loop.evaluation import Evaluation, Evaluator
from rayzero.services.loop.gpu_time_sharing import GpuTimeSharing
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.loop.side_task import SideTask
from rayzero.services.loop.stall import describe_stall
from rayzero.services.loop.update_row import update_row
from rayzero.services.loop.weight_sync import SyncReport, WeightSync
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import DeadlineError, RunHalted
from rayzero.services.schema.interfaces import LearnerHandle, PromptSource, RolloutWorker
from rayzero.services.schema.messages import Group, UpdateResult

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Is called with what happened: the recorder writes it down, the progress view shows it."""

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done and its weights are served."""
        ...

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """One pass over the held-out prompts is done."""
        ...

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """A finished group is retired untrained."""
        ...


class Saver(Protocol):
    """Who makes checkpoints (services/loop/checkpointer.py)."""

    async def save(self, controller: Controller, accuracy: float | None) -> None:
        """Save everything that belongs together."""
        ...


@dataclass(slots=True)
class Controller:
    """One run. `run` returns when all updates are made or `stop` was called."""

    recipe: Recipe
    prompts: PromptSource
    buffer: GroupBuffer
    runner: GroupRunner
    rollouts: Fleet[RolloutWorker]
    learner: LearnerHandle
    sync: WeightSync
    evaluator: Evaluator
    saver: Saver
    observers: Sequence[Observer]
    clock: Callable[[], float] = time.monotonic
    stopping: bool = False
    accuracies: dict[int, float] = field(default_factory=dict)
    """Held-out accuracy by version."""
    num_tokens: int = 0
    num_samples: int = 0
    saved_version: int = -1
    """Version of the last checkpoint; -1: none yet."""
    activity: Activity = field(default_factory=Activity)
    _admission: Admission = field(init=False)
    _gpu: GpuTimeSharing = field(init=False)
    _boundary: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from a batch being taken until its groups are retired: a checkpoint lies before or after an update."""
    _weights: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the learner's weights change or travel: a joining worker is never given half an update."""
    _evaluating: SideTask = field(default_factory=SideTask)
    _saving: SideTask = field(default_factory=SideTask)
    _last_progress_s: float = 0.0

    def __post_init__(self) -> None:
        """A run starts unpaused, and its parts share one clock."""
        self.activity.clock = self.clock
        self._last_progress_s = self.clock()
        self._admission = Admission(self.recipe, self.prompts, self.buffer, self.runner, self._on_finish)
        self._admission.running.set()
        self._gpu = GpuTimeSharing(self.rollouts, self.recipe.cluster.takes_turns)

    async def run(self) -> None:
        """Train until the recipe's last update.

        Raises:
            RayzeroError: whatever ended the run early; state is saved where there is anything to save.
        """
        self._last_progress_s = self.clock()
        with self.activity(Phase.SYNC):
            await self.sync.broadcast(self.buffer.version)
        # A run resumed at version 0 has this evaluation already: once more, and its accuracy would stand there twice.
        if self.buffer.version == 0 and not self.accuracies:
            await self._evaluate()
        named = (self._train_loop, self._admission.run, self._join_loop, self._watch_loop)
        loops = [asyncio.create_task(loop()) for loop in named]
        try:
            done, _ = await asyncio.wait([*loops, self._admission.failed], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except RunHalted as halt:
            self.buffer.give_up_batch(str(halt))
            await self._save()
            raise
        finally:
            await self._cancel(loops)

    def stop(self) -> None:
        """Finish the update in hand, save, and return from `run`."""
        self.stopping, self._admission.is_open = True, False
        self.buffer.interrupt()

    @property
    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return not self._admission.running.is_set()

    @property
    def stalled_s(self) -> float:
        """How long nothing was finished, or the learner has waited for groups: at deadlines.stall_s the run ends
        itself. 0 while it is paused."""
        if self.paused:
            return 0.0
        return max(self._silent_s, self.activity.seconds().get(Phase.WAIT, 0.0))

    async def pause(self) -> None:
        """Start no more groups and no more updates; returns when what was in hand is finished."""
        self._admission.running.clear()
        async with self._boundary:
            while self._admission.is_busy():
                await asyncio.sleep(0.01)
            await self._evaluating.finish()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._last_progress_s = self.clock()
        self._admission.running.set()

    async def checkpoint(self) -> int:
        """Save between two updates; returns the saved version."""
        async with self._boundary:
            await self._save()
            return self.buffer.version

    async def _train_loop(self) -> None:
        """Batches to versions."""
        while self.buffer.version < self.recipe.training.num_updates and not self.stopping:
            await self._admission.running.wait()
            waited = self.clock()
            try:
                await self._wait_for_batch()
            except DeadlineError:
                if not self.paused:
                    raise
            async with self._boundary:
                groups = None if self.paused or self.stopping else self.buffer.take_now()
                if groups is not None:
                    await self._update(groups, waited)
        await self._evaluating.finish()
        await self._saving.finish()
        if self.saved_version != self.buffer.version:
            await self._save()

    async def _wait_for_batch(self) -> None:
        with self.activity(Phase.WAIT):
            try:
                await self.buffer.wait_for_batch(self.recipe.deadlines.stall_s)
            except DeadlineError:
                raise self._stall() from None

    async def _update(self, groups: list[Group], waited: float) -> None:
        """One batch: update, sync, and what follows."""
        started = self.clock()
        version = self.buffer.version + 1
        async with self._weights:
            await self._saving.finish()
            async with self._gpu.learner():
                with self.activity(Phase.UPDATE):
                    result = await self.learner.update(groups, version)
            updated = self.clock()
            await self._hold_weights()
            held = self.clock()
            with self.activity(Phase.SYNC):
                report = await self.sync.broadcast(version)
        timings = {
            "wait_s": started - waited,
            "update_s": updated - started,
            "hold_s": held - updated,
            "sync_s": report.seconds,
        }
        await self._finish(groups, result, report, timings)

    async def _finish(
        self, groups: list[Group], result: UpdateResult, report: SyncReport, timings: dict[str, float]
    ) -> None:
        """What follows an update whose weights are served: record, retire, evaluate, save."""
        version = result.policy_version
        self._last_progress_s = self.clock()
        self.num_tokens += sum(group.num_tokens for group in groups)
        self.num_samples += sum(len(group.rollouts) for group in groups)
        self.sync.canary.learn(groups)
        row = update_row(groups, result, report, timings, self.buffer)
        every = self.recipe.evaluation.every_updates
        last = version == self.recipe.training.num_updates
        evaluate = last or bool(every and version % every == 0)
        # At max_staleness 0 an evaluation has the engines to itself.
        apart = evaluate and (self.recipe.training.is_synchronous or last)
        self._admission.is_open = not (apart or self.stopping)
        self.buffer.retire(groups, version)
        if last:
            self.buffer.give_up_rest()
        if evaluate:
            await self._evaluating.finish()
            self._evaluating.begin(self._evaluate(version))
        if apart:
            await self._evaluating.finish()
            self._admission.is_open = not self.stopping
            self.buffer.notify()
        told = with_kl(groups, result.rollout_kl)
        for observer in self.observers:
            observer.on_update(row, told)
        every = self.recipe.checkpoint.every_updates
        if last or (every and version % every == 0):
            await self._begin_save()

    async def _join_loop(self) -> None:
        """New and replaced workers to the current weights, while the learner waits for groups."""
        while True:
            await self.rollouts.wait_for_joining()
            async with self._weights:
                await self.sync.refit(self.buffer.version)

    async def _watch_loop(self) -> None:
        """Nothing waits for ever: when no group finished and no update was made for too long, say who waits."""
        limit = self.recipe.deadlines.stall_s
        while True:
            await asyncio.sleep(min(5.0, limit / 4))
            if self._silent_s > limit and not self.paused:
                raise self._stall()

    def _stall(self) -> DeadlineError:
        report = describe_stall(self.activity, self.buffer, [self.runner.rollouts, self.runner.rewards])
        return DeadlineError(f"stalled: nothing was finished for {self._silent_s:.0f} s\n{report}")

    @property
    def _silent_s(self) -> float:
        return self.clock() - self._last_progress_s

    def _on_finish(self, group: Group, reason: DropReason | None) -> None:
        self._last_progress_s = self.clock()
        if reason is not None:
            for observer in self.observers:
                observer.on_drop(group, reason)

    async def _evaluate(self, version: int | None = None) -> None:
        with self.activity(Phase.EVALUATION):
            evaluation = await self.evaluator.run(self.buffer.version if version is None else version)
        self._last_progress_s = self.clock()
        self.sync.canary.learn(evaluation.groups)
        self.accuracies[evaluation.policy_version] = evaluation.accuracy
        for observer in self.observers:
            observer.on_evaluation(evaluation)

    async def _hold_weights(self) -> None:
        """An evaluation under way goes on with the weights it began with, if the recipe says so.

        Not without anybody who serves: its groups then wait for a worker, and the worker for these weights.
        """
        if self.recipe.evaluation.on_new_weights == "wait":
            while self._evaluating.is_running and self.rollouts.serving():
                await self._evaluating.wait(0.25)

    async def _save(self) -> None:
        await self._begin_save()
        await self._saving.finish()

    async def _begin_save(self) -> None:
        """Save beside the next groups being generated; the next update waits for it."""
        await self._saving.finish()
        self._saving.begin(self._save_now(self.buffer.version))
        # The run's own state is taken in the task's first step: before anything else can change it.
        await asyncio.sleep(0)

    async def _save_now(self, version: int) -> None:
        with self.activity(Phase.CHECKPOINT):
            await self.saver.save(self, self.accuracies.get(version))
        self.saved_version = version

    async def _cancel(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        tasks = [*tasks, *(side.task for side in (self._evaluating, self._saving) if side.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._admission.cancel(), *tasks, return_exceptions=True)

    def state_dict(self) -> dict[str, Any]:
        """What resumes with the learner's own checkpoint."""
        return {
            "buffer": self.buffer.state_dict(),
            "prompts": self.prompts.state_dict(),
            "accuracies": dict(self.accuracies),
            "num_tokens": self.num_tokens,
            "num_samples": self.num_samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; the learner loads its own part."""
        self.buffer.load_state_dict(state["buffer"])
        self.prompts.load_state_dict(state["prompts"])
        self.accuracies = dict(state["accuracies"])
        self.num_tokens, self.num_samples = state["num_tokens"], state["num_samples"]
        self.saved_version = self.buffer.version
