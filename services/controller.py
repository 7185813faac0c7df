"""The main loop. The data path, once:

    prompts ─► admit ─► carry (rollout worker ─► reward worker) ─► buffer ─► take ─► learner.update
       ▲                                                                                  │
       └───────────────── retire ◄── evaluate, checkpoint ◄── sync (weights to every engine) ◄┘

The loops share the buffer. `_admit_loop` gives every prompt that has room a task which carries it; `_train_loop` takes
batches and turns them into versions. At max_staleness 0 a version's groups are admitted only after its weights are
served, so the two take turns; above 0 they overlap, and the buffer holds the bound. `_join_loop` brings new workers to
the current weights, `_watch_loop` ends a run in which nothing moves any more, with a report.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.activity import Activity, Phase
from services.evaluation import Evaluation, Evaluator, is_accurate
from services.fleet import Fleet
from services.group_buffer import Entry, GroupBuffer, GroupState
from services.group_carrier import GroupCarrier
from services.schema.config.recipe import Recipe
from services.schema.errors import DeadlineError, RecipeError, RunHalted, WorkerError
from services.schema.interfaces import Learner, PromptSource, RolloutWorker
from services.schema.messages import Group, GroupRequest, UpdateResult, VerdictStatus
from services.weight_sync import SyncReport, WeightSync

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told what happened: the recorder writes it down, the progress view shows it."""

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done and its weights are served."""
        ...

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """One pass over the held-out prompts is done."""
        ...

    def on_drop(self, group: Group, reason: str) -> None:
        """A finished group is retired untrained."""
        ...


class Saver(Protocol):
    """Who makes checkpoints (services/checkpointing.py)."""

    async def save(self, controller: Controller, accuracy: float | None) -> None:
        """Save everything that belongs together."""
        ...


@dataclass(slots=True)
class Controller:
    """One run. `run` returns when all updates are made or `stop` was called."""

    recipe: Recipe
    prompts: PromptSource
    buffer: GroupBuffer
    carrier: GroupCarrier
    rollouts: Fleet[RolloutWorker]
    learner: Learner
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
    _running: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the run is paused."""
    _boundary: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from a batch being taken until its groups are retired: a checkpoint lies before or after an update."""
    _weights: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the learner's weights change or travel: a joining worker is never given half an update."""
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)
    _evaluating: asyncio.Task[None] | None = None
    _failed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _last_progress_s: float = 0.0
    _held_back: bool = False
    """Nothing is admitted: at max_staleness 0 an evaluation has the engines to itself."""

    def __post_init__(self) -> None:
        """A run starts unpaused, and its parts share one clock."""
        self._running.set()
        self.activity.clock = self.clock

    async def run(self) -> None:
        """Train until the recipe's last update.

        Raises:
            RayzeroError: whatever ended the run early; state is saved where there is anything to save.
        """
        self._last_progress_s = self.clock()
        with self.activity(Phase.SYNC):
            await self.sync.broadcast(self.buffer.version)
        if self.buffer.version == 0 and not self.accuracies:
            await self._evaluate()
        named = (self._train_loop, self._admit_loop, self._join_loop, self._watch_loop)
        loops = [asyncio.create_task(loop()) for loop in named]
        try:
            done, _ = await asyncio.wait([*loops, self._failed], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except RunHalted as halt:
            self.buffer.give_up_batch(f"halted: {halt}")
            await self._save()
            raise
        finally:
            await self._cancel([*loops, *self._carrying])

    def stop(self) -> None:
        """Finish the update in hand, save, and return from `run`."""
        self.stopping = True
        self.buffer.interrupt()

    @property
    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return not self._running.is_set()

    async def pause(self) -> None:
        """Start no more groups and no more updates; returns when what was in hand is finished."""
        self._running.clear()
        async with self._boundary:
            while self._moving():
                await self.buffer.wait_for_change()
            await self._finish_evaluation()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._last_progress_s = self.clock()
        self._running.set()

    async def checkpoint(self) -> int:
        """Save between two updates; returns the saved version."""
        async with self._boundary:
            await self._save()
            return self.buffer.version

    def _moving(self) -> bool:
        return any(entry.state in (GroupState.GENERATING, GroupState.SCORING) for entry in self.buffer.entries.values())

    async def _train_loop(self) -> None:
        """Batches to versions."""
        while self.buffer.version < self.recipe.training.num_updates and not self.stopping:
            await self._running.wait()
            waited = self.clock()
            try:
                with self.activity(Phase.WAIT):
                    await self.buffer.wait_for_batch(self.recipe.deadlines.stall_s)
            except DeadlineError:
                if not self.paused:
                    raise
            async with self._boundary:
                groups = None if self.paused or self.stopping else self.buffer.take_now()
                if groups is not None:
                    await self._update(groups, waited)
        await self._finish_evaluation()
        if self.saved_version != self.buffer.version:
            await self._save()

    async def _update(self, groups: list[Group], waited: float) -> None:
        """One batch: update, sync, and what follows."""
        started = self.clock()
        version = self.buffer.version + 1
        async with self._weights:
            with self.activity(Phase.UPDATE):
                result = await self.learner.update(groups, version)
            updated = self.clock()
            with self.activity(Phase.SYNC):
                report = await self.sync.broadcast(version)
        timings = {"wait_s": started - waited, "update_s": updated - started, "sync_s": report.seconds}
        await self._finish(groups, result, report, timings)

    async def _finish(
        self, groups: list[Group], result: UpdateResult, report: SyncReport, timings: dict[str, float]
    ) -> None:
        """What follows an update whose weights are served: record, retire, evaluate, save."""
        version = result.policy_version
        self._last_progress_s = self.clock()
        self.num_tokens += sum(group.num_tokens for group in groups)
        self.num_samples += sum(len(group.rollouts) for group in groups)
        staleness = [version - 1 - group.oldest_version for group in groups]
        row = {
            "update": version,
            **batch_metrics(groups),
            **result.metrics,
            **timings,
            "sync_pause_s": report.pause_s,
            "staleness_mean": sum(staleness) / len(staleness),
            "staleness_max": max(staleness),
            "dropped_groups": sum(self.buffer.dropped.values()),
            "time_s": time.time(),
            "num_rollout_workers": report.num_workers,
            "warnings": list(result.warnings),
        }
        every = self.recipe.evaluation.every_updates
        last = version == self.recipe.training.num_updates
        evaluate = last or bool(every and version % every == 0)
        apart = evaluate and (self.recipe.training.max_staleness == 0 or last)
        self._held_back = apart
        self.buffer.retire(groups, version)
        if evaluate:
            await self._finish_evaluation()
            self._evaluating = asyncio.create_task(self._evaluate(version))
        if apart:
            await self._finish_evaluation()
            self._held_back = False
            self.buffer.notify()
        for observer in self.observers:
            observer.on_update(row, groups)
        every = self.recipe.checkpoint.every_updates
        if last or (every and version % every == 0):
            await self._save()

    async def _admit_loop(self) -> None:
        """Prompts to tasks: as many as the staleness bound has room for."""
        for entry in [entry for entry in self.buffer.entries.values() if entry.state is GroupState.WAITING]:
            self._carry_in_background(entry)
        total = self.recipe.training.num_updates * self.recipe.training.groups_per_update
        while True:
            await self._running.wait()
            while self._may_admit(total):
                self._carry_in_background(self.buffer.admit(self.prompts.next()))
            await self.buffer.wait_for_change()

    def _may_admit(self, total: int) -> bool:
        open_ = not (self.stopping or self._held_back or self.paused)
        return open_ and self.buffer.room > 0 and self.buffer.num_needed(total) > 0

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
            silent = self.clock() - self._last_progress_s
            if silent > limit and not self.paused:
                raise DeadlineError(f"stalled: nothing was finished for {silent:.0f} s\n{self.buffer.describe()}")

    def _carry_in_background(self, entry: Entry) -> None:
        task = asyncio.create_task(self._carry(entry))
        self._carrying.add(task)
        task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        """A group's task ended; one that failed ends the run now, not when somebody misses its group."""
        self._carrying.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _carry(self, entry: Entry) -> None:
        """One group, from admission to `commit` or `drop`."""
        sampling = self.recipe.training_sampling(entry.group_id)
        request = GroupRequest(group_id=entry.group_id, prompt=entry.prompt, sampling=sampling)
        await self._running.wait()
        try:
            group = await self.carrier.carry(request, lambda state, holder: self.buffer.move(entry, state, holder))
        except WorkerError as error:
            if self.rollouts.failure is not None:
                raise
            self.buffer.drop(entry, f"failed: {error}")
            return
        except RecipeError as error:
            # A prompt that does not fit the engine costs itself, not the run.
            self.buffer.drop(entry, f"refused: {error}")
            return
        self._last_progress_s = self.clock()
        reason = self._reason_to_drop(group)
        if reason is None:
            self.buffer.commit(entry, group)
            return
        self.buffer.drop(entry, reason)
        for observer in self.observers:
            observer.on_drop(group, reason)

    def _reason_to_drop(self, group: Group) -> str | None:
        rewards = [r.verdict.reward for r in group.rollouts if r.verdict.status is not VerdictStatus.ERROR]
        if len(rewards) < 2:
            return "verdict errors"
        if self.recipe.training.skip_uniform_groups and max(rewards) == min(rewards):
            return "uniform rewards"
        return None

    async def _evaluate(self, version: int | None = None) -> None:
        with self.activity(Phase.EVALUATION):
            evaluation = await self.evaluator.run(self.buffer.version if version is None else version)
        self._last_progress_s = self.clock()
        self.accuracies[evaluation.policy_version] = evaluation.accuracy
        for observer in self.observers:
            observer.on_evaluation(evaluation)

    async def _finish_evaluation(self) -> None:
        task = self._evaluating
        if task is not None:
            await task
            self._evaluating = None if self._evaluating is task else self._evaluating

    async def _save(self) -> None:
        with self.activity(Phase.CHECKPOINT):
            await self.saver.save(self, self.accuracies.get(self.buffer.version))
        self.saved_version = self.buffer.version

    async def _cancel(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        tasks = [*tasks, *([self._evaluating] if self._evaluating is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


def batch_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What the controller itself can say of a batch: rewards by component, accuracy, lengths, uniform groups."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    judged = [rollout for rollout in rollouts if rollout.verdict.status is not VerdictStatus.ERROR]
    names = sorted({name for rollout in judged for name in rollout.verdict.components})
    metrics = {
        "reward_mean": _mean([rollout.verdict.reward for rollout in judged]),
        "train_accuracy": _mean([float(is_accurate(rollout)) for rollout in judged]),
        "verdict_errors": float(len(rollouts) - len(judged)),
        "samples": float(len(rollouts)),
        "completion_tokens": float(sum(group.num_tokens for group in groups)),
        "uniform_group_share": _mean([float(_is_uniform(group)) for group in groups]),
    }
    for name in names:
        scores = [r.verdict.components[name] for r in judged if name in r.verdict.components]
        metrics[f"reward/{name}"] = _mean(scores)
    return metrics


def _is_uniform(group: Group) -> bool:
    rewards = {r.verdict.reward for r in group.rollouts if r.verdict.status is not VerdictStatus.ERROR}
    return len(rewards) <= 1


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
