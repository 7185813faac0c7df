"""Brings groups in: a prompt for every place that the staleness bound has, and a task that runs each to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rayzero.services.loop.deterministic_dispatch import assign
from rayzero.services.loop.drops import Drops
from rayzero.services.loop.group_buffer import Entry, GroupBuffer, GroupState
from rayzero.services.loop.group_runner import GroupAborted, GroupRunner
from rayzero.services.loop.length_bias import TOOK_TOO_LONG, LengthBias
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import PromptRefused, PromptTooLong, WorkerError
from rayzero.services.schema.interfaces import PromptSource
from rayzero.services.schema.messages import Group, GroupRequest

ON_THEIR_WAY = (GroupState.GENERATING, GroupState.SCORING)
AT_ONCE = 64
"""Groups that are admitted in one step of the event loop: a few milliseconds."""


@dataclass(slots=True)
class Admission:
    """`run` admits for as long as it is open; `on_finish` hears of every group that came to its end."""

    recipe: Recipe
    prompts: PromptSource
    buffer: GroupBuffer
    runner: GroupRunner
    on_finish: Callable[[Group, DropReason | None], None]
    """The group, and why it was dropped untrained (None: it is ready)."""
    drops: Drops
    """Says and bounds what is dropped."""
    running: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the run is paused: nothing is admitted, and what waits does not begin."""
    is_open: bool = True
    """False while nothing may be admitted for another reason: the run stops, or an evaluation has the engines."""
    failed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Fails with the first group whose failure must end the run."""
    lengths: LengthBias = field(default_factory=LengthBias)
    """Of what is dropped for its time, against what is trained on."""
    _carrying: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    """The task of every group on its way, by the group's number."""
    _aborting: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """The work on a group that the buffer drops early is ended."""
        self.buffer.on_early_drop = self._end_work

    async def run(self) -> None:
        """Prompts to tasks: as many as the staleness bound has room for."""
        # A resumed run's groups: they were admitted before, under numbers and seeds that they keep.
        entries = [entry for entry in self.buffer.entries.values() if entry.state is GroupState.WAITING]
        while True:
            await self.running.wait()
            entries += [self.buffer.admit(self.prompts.next()) for _ in range(self._num_admitted())]
            self._carry_all([entry for entry in entries if not entry.dropped_for])
            entries = []
            if self._num_admitted() > 0:
                await asyncio.sleep(0)
            else:
                await self.buffer.wait_for_change()

    def _num_admitted(self) -> int:
        """How many groups come in now: all that have room in a synchronous run, which deals them out as one batch; else
        so few that what else happens is not held up."""
        training = self.recipe.training
        if not self.is_open or (training.is_synchronous and self.is_busy()):
            return 0
        needed = self.buffer.num_needed(training.num_updates * training.groups_per_update)
        room = max(0, min(self.buffer.num_free, needed))
        return room if training.is_synchronous else min(room, AT_ONCE)

    def is_busy(self) -> bool:
        """Whether a group is being generated or scored. Those that wait have not begun."""
        return any(entry.state in ON_THEIR_WAY for entry in self.buffer.entries.values())

    async def cancel(self) -> None:
        """Give up every group on its way."""
        tasks = [*self._carrying.values(), *self._aborting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _carry_all(self, entries: Sequence[Entry]) -> None:
        """Each in a task of its own; in a synchronous run dealt out as one batch."""
        requests = [
            GroupRequest(
                group_id=entry.group_id, prompt=entry.prompt, sampling=self.recipe.training_sampling(entry.group_id)
            )
            for entry in entries
        ]
        workers = [slot.name for slot in self.runner.rollouts.serving()] if self.recipe.training.is_synchronous else []
        if workers and requests:
            assigned = assign(requests, workers, f"groups {entries[0].group_id} to {entries[-1].group_id}")
            for entry, dealt in zip(entries, assigned, strict=True):
                self._run_in_background(entry, dealt.request, dealt.worker)
            return
        for entry, request in zip(entries, requests, strict=True):
            self._run_in_background(entry, request)

    def _run_in_background(self, entry: Entry, request: GroupRequest, worker: str = "") -> None:
        task = asyncio.create_task(self._run_group(entry, request, worker))
        self._carrying[entry.group_id] = task
        task.add_done_callback(lambda ended: self._carried(entry.group_id, ended))

    def _carried(self, group_id: int, task: asyncio.Task[None]) -> None:
        """A group's task ended; one that failed ends the run now, not when its group is missed."""
        del self._carrying[group_id]
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)

    def _end_work(self, entry: Entry) -> None:
        """A group has left the buffer untrained: it is not begun, or its engine ends it.

        One that is being scored comes to its end by itself: its completions are paid for and worth recording.
        """
        if entry.state is GroupState.READY and entry.group is not None:
            self._finish_untrained(entry.group, entry.dropped_for)
        elif entry.state is GroupState.WAITING and entry.group_id in self._carrying:
            self._carrying[entry.group_id].cancel()
        elif entry.state is GroupState.GENERATING:
            task = asyncio.create_task(self.runner.abort(entry.group_id, entry.holder))
            self._aborting.add(task)
            task.add_done_callback(self._aborting.discard)

    async def _run_group(self, entry: Entry, request: GroupRequest, worker: str) -> None:
        """One group, from admission to `commit` or `drop`."""
        await self.running.wait()
        try:
            group = await self.runner.run(request, lambda state, holder: self.buffer.move(entry, state, holder), worker)
        except WorkerError as error:
            if self.runner.failure is not None:
                raise  # no later group would fare better: the run ends with this cause, not with a stall
            self._drop(entry, DropReason.FAILED, str(error))
            return
        except GroupAborted as aborted:
            self.lengths.on_drop(aborted.completions, entry.dropped_for)
            return
        except PromptRefused as error:
            # A prompt that the model cannot be given costs itself, not the run.
            too_long = isinstance(error, PromptTooLong)
            self._drop(entry, DropReason.TOO_LONG if too_long else DropReason.REFUSED, str(error))
            return
        self.prompts.learn(group)
        reason = entry.dropped_for or self._reason_to_drop(group)
        if reason is None:
            self.buffer.commit(entry, group)
            self.on_finish(group, None)
        else:
            self._drop(entry, reason)
            self._finish_untrained(group, reason)

    def _finish_untrained(self, group: Group, reason: DropReason | None) -> None:
        self.lengths.on_drop((rollout.completion for rollout in group.rollouts), reason)
        if reason not in TOOK_TOO_LONG:
            self.lengths.on_limit(group)
        self.on_finish(group, reason)

    def _drop(self, entry: Entry, reason: DropReason, detail: str = "") -> None:
        """Another prompt takes its place, as long as that leads anywhere.

        Raises:
            NothingToTrainOn: so many were dropped since the last update that it does not.
        """
        self.buffer.drop(entry, reason, detail)
        self.drops.count(self.buffer.version, self.buffer.dropped[reason], entry, reason, detail)

    def _reason_to_drop(self, group: Group) -> DropReason | None:
        if len(group.judged) < 2:
            return DropReason.VERDICT_ERRORS
        by_part = self.recipe.learner.advantage_name == "component_normalised"
        uniform = group.is_uniform_by_part if by_part else group.is_uniform
        return DropReason.UNIFORM_REWARDS if uniform and self.recipe.training.skip_uniform_groups else None
