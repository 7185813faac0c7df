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
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.activity import Activity, Phase
from rayzero.services.loop.admission import Admission
from rayzero.services.loop.batch_metrics import with_kl
from rayzero.services.loop.drops import Drops
from rayzero.services.loop.evaluation import Evaluator
from rayzero.services.loop.gpu_time_sharing import GpuTimeSharing
from rayzero.services.loop.group_buffer import GroupBuffer
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.loop.observers import Observer, Saver
from rayzero.services.loop.side_task import SideTask
from rayzero.services.loop.stall import stalled
from rayzero.services.loop.update_row import Row, batch_row, update_row, watch_update
from rayzero.services.loop.weight_sync import SyncReport, WeightSync
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import DeadlineError, RayzeroError, RunDirectoryError, RunHalted
from rayzero.services.schema.interfaces import LearnerHandle, PromptSource, RolloutWorker
from rayzero.services.schema.messages import Group, UpdateResult

logger = logging.getLogger(__name__)


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
    say: Callable[[str], None] = logger.warning
    """Shows what a user must know at once."""
    stopping: bool = False
    accuracies: dict[int, float] = field(default_factory=dict)
    """Held-out accuracy by version."""
    measuring: int | None = None
    """The version whose accuracy is not known yet: its evaluation goes on beside the training."""
    num_tokens: int = 0
    num_samples: int = 0
    saved_version: int = -1
    """Version of the last checkpoint; -1: none yet."""
    activity: Activity = field(default_factory=Activity)
    _admission: Admission = field(init=False)
    _drops: Drops = field(init=False)
    _gpu: GpuTimeSharing = field(init=False)
    _boundary: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from a batch being taken until its groups are retired: a checkpoint lies before or after an update."""
    _weights: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the learner's weights change or travel: a joining worker is never given half an update."""
    _evaluating: SideTask = field(default_factory=SideTask)
    _saving: SideTask = field(default_factory=SideTask)
    _last_progress_s: float = 0.0
    _is_updating: bool = False
    """The learner may be one version ahead of the buffer: they cannot be saved together."""

    def __post_init__(self) -> None:
        """A run starts unpaused, and its parts share one clock."""
        self.activity.clock = self.clock
        self._last_progress_s = self.clock()
        self._drops = Drops(self.recipe.training, self.say)
        self._admission = Admission(self.recipe, self.prompts, self.buffer, self.runner, self._on_finish, self._drops)
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
        if self.evaluates_first:
            self._evaluating.begin(self._evaluate(self.buffer.version))
            await self._evaluating.finish()
        named = (self._train_loop, self._admission.run, self._join_loop, self._watch_loop)
        loops = [asyncio.create_task(loop()) for loop in named]
        try:
            done, _ = await asyncio.wait([*loops, self._admission.failed], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except RunHalted as halt:
            self.buffer.drop_batch(str(halt))
            await self._save()
            raise
        except RayzeroError as error:
            await self._keep_updates(loops[0], error)
            raise
        finally:
            await self._cancel(loops)

    @property
    def evaluates_first(self) -> bool:
        """A resumed run may have the evaluation already: once more, and its accuracy would stand there twice."""
        return self.recipe.evaluates_at(self.buffer.version) and self.buffer.version not in self.accuracies

    def stop(self) -> None:
        """Finish the update in hand, save, and return from `run`. An evaluation is left for the run that goes on."""
        self.stopping, self._admission.is_open = True, False
        self._evaluating.give_up()
        self._admission.running.set()
        self.buffer.interrupt()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to learn."""
        return self.recipe.training.is_over(self.buffer.version, self.accuracies)

    @property
    def _is_ending(self) -> bool:
        return self.stopping or self.is_over

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
        return max(self._silent_s, self.waiting_s)

    @property
    def waiting_s(self) -> float:
        """How long the learner has waited for groups; 0 while it computes, or is paused."""
        return 0.0 if self.paused else self.activity.seconds().get(Phase.WAIT, 0.0)

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
        while not self._is_ending:
            await self._admission.running.wait()
            waited = self.clock()
            await self._wait_for_batch()
            async with self._boundary:
                groups = None if self.paused or self._is_ending else self.buffer.take_now()
                if groups is not None:
                    await self._update(groups, waited)
        await self._evaluating.finish()
        if self.is_over and not self.stopping:
            self.buffer.drop_rest()
            # The goal was reached by an evaluation of an earlier version.
            if self.recipe.evaluates and self.buffer.version not in self.accuracies:
                await self._evaluate(self.buffer.version)
        await self._saving.finish()
        if self.saved_version != self.buffer.version:
            await self._save()

    async def _keep_updates(self, training: asyncio.Task[None], error: RayzeroError) -> None:
        """The run ends for a failure elsewhere: what the learner has made is saved, the update in hand included."""
        if isinstance(error, RunDirectoryError) or (isinstance(error, DeadlineError) and self._is_updating):
            return  # it is the saving that fails, or the update that hangs
        self.stop()
        deadlines = self.recipe.deadlines
        await asyncio.wait([training], timeout=deadlines.update_s + deadlines.sync_s + deadlines.checkpoint_s)
        if training.done() and not self._is_updating and self.buffer.version > max(self.saved_version, 0):
            try:
                await self._save()
            except RayzeroError as again:
                logger.warning("the updates since version %d could not be saved: %s", self.saved_version, again)

    async def _wait_for_batch(self) -> None:
        with self.activity(Phase.WAIT):
            try:
                await self.buffer.wait_for_batch(self.recipe.deadlines.stall_s)
            except DeadlineError:
                if not self.paused:
                    raise self._stall() from None

    async def _update(self, groups: list[Group], waited: float) -> None:
        """One batch: update, sync, and what follows."""
        started, version = self.clock(), self.buffer.version + 1
        self._is_updating = True
        # In a thread: of a large batch it would hold up the loop, and every engine that is done meanwhile.
        described = asyncio.get_running_loop().run_in_executor(None, batch_row, groups)
        async with self._weights:
            await self._saving.finish()
            async with self._gpu.learner():
                with self.activity(Phase.UPDATE):
                    result = await self.learner.update(groups, version)
            updated = self.clock()
            if self.recipe.evaluation.on_new_weights == "wait":
                # Not where no engine serves: the evaluation then waits for one, and that one for these weights.
                await self._evaluating.wait_while(self.rollouts.serving)
            held_s = self.clock() - updated
            # Not after the lock: a worker that joins before the groups are retired would be given the version before.
            figures = await described | {"wait_s": started - waited, "update_s": updated - started, "hold_s": held_s}
            try:
                with self.activity(Phase.SYNC):
                    report = await self.sync.broadcast(version)
            except RayzeroError:
                self._book_unserved(groups, figures, result)
                raise
        await self._finish(groups, figures, result, report)

    def _book_unserved(self, groups: list[Group], figures: Row, result: UpdateResult) -> None:
        """An update that no engine holds, for the run ends here: made all the same, and saved with the others."""
        row = update_row(groups, figures, result, SyncReport.unsent(result.policy_version), self.buffer)
        self.buffer.retire(groups, result.policy_version)
        self._is_updating = False
        for observer in self.observers:
            observer.on_update(row, with_kl(groups, result.rollout_kl))

    async def _finish(self, groups: list[Group], figures: Row, result: UpdateResult, report: SyncReport) -> None:
        """What follows an update whose weights are served: record, retire, evaluate, save."""
        version = result.policy_version
        self._last_progress_s = self.clock()
        self.num_tokens += sum(group.num_tokens for group in groups)
        self.num_samples += sum(len(group.rollouts) for group in groups)
        row = update_row(groups, figures, result, report, self.buffer)
        halt = watch_update(row, groups, report, self._admission.lengths, self.sync.canary, self.recipe)
        last = version == self.recipe.training.num_updates
        evaluate = self.recipe.evaluates_at(version)
        # At max_staleness 0 an evaluation has the engines to itself.
        apart = evaluate and (self.recipe.training.is_synchronous or last)
        self._admission.is_open = not (apart or self._is_ending)
        self.buffer.retire(groups, version)
        self._is_updating = False
        if last:
            self.buffer.drop_rest()
        if evaluate and not self.stopping:
            await self._evaluating.finish()
            self._evaluating.begin(self._evaluate(version))
        if apart:
            await self._evaluating.finish()
            self._admission.is_open = not self._is_ending
            self.buffer.notify()
        for observer in self.observers:
            observer.on_update(row, with_kl(groups, result.rollout_kl))
        if halt is not None:
            raise halt
        if last or self.recipe.saves_at(version):
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
        return stalled(self.stalled_s, self.activity, self.buffer, self.runner.fleets, self._drops.describe())

    @property
    def _silent_s(self) -> float:
        return self.clock() - self._last_progress_s

    def _on_finish(self, group: Group, reason: DropReason | None) -> None:
        self._last_progress_s = self.clock()
        if reason is not None:
            for observer in self.observers:
                observer.on_drop(group, reason)

    async def _evaluate(self, version: int) -> None:
        self.measuring = version
        try:
            with self.activity(Phase.EVALUATION):
                evaluation = await self.evaluator.run(version, self.recipe.greedy_at)
        finally:
            self.measuring = None
        self._last_progress_s = self.clock()
        self.sync.canary.learn(evaluation.groups)
        self.accuracies[evaluation.policy_version] = evaluation.accuracy
        if self.is_over:
            self._admission.is_open = False
            self.buffer.interrupt()
        for observer in self.observers:
            observer.on_evaluation(evaluation)

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
            await self.saver.save(self)
        self.saved_version = version

    async def _cancel(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        tasks = [*tasks, *(side.task for side in (self._evaluating, self._saving) if side.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._admission.cancel(), *tasks, return_exceptions=True)
