"""Carries one group from its prompt to its verdicts: generate, score, try again elsewhere when a worker fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.episode_runner import EpisodeRunner
from rayzero.services.loop.episode_verdicts import judged
from rayzero.services.loop.group_buffer import GroupState
from rayzero.services.schema.errors import DeadlineError, RayzeroError, WorkerError
from rayzero.services.schema.interfaces import RewardWorker, RolloutWorker
from rayzero.services.schema.messages import Completion, Group, GroupCompletions, GroupRequest, Rollout, Verdict

logger = logging.getLogger(__name__)

OnMove = Callable[[GroupState, str], None]


def _no_move(state: GroupState, holder: str) -> None:
    """Evaluation groups have no place in the buffer."""


class GroupAborted(Exception):
    """The group was given up on its way, with what there was of its completions."""

    def __init__(self, completions: tuple[Completion, ...] = ()) -> None:
        super().__init__()
        self.completions = completions


@dataclass(slots=True)
class GroupRunner:
    """The way from `GroupRequest` to `Group`, for training and evaluation alike."""

    rollouts: Fleet[RolloutWorker]
    rewards: Fleet[RewardWorker]
    max_attempts: int
    lease_deadline_s: float
    episodes: EpisodeRunner | None = None
    """Runs a group as episodes; None: one completion each."""
    aborted_tokens: int = 0
    """Completion tokens of groups that were given up while they were generated."""
    _aborted: set[int] = field(default_factory=set)
    """Groups that are on their way and not wanted any more."""

    async def run(
        self, request: GroupRequest, on_move: OnMove = _no_move, worker: str = "", priority: bool = False
    ) -> Group:
        """One finished group, from `worker` if one is given. A failed step is tried again on whichever is free next.

        `priority`: it is served before every group without it.

        Raises:
            WorkerError: a step failed `max_attempts` times; the message holds the last cause.
            GroupAborted: `abort` was called before it was generated.
        """
        try:
            made = await self._generate(request, on_move, worker, priority)
            if request.group_id in self._aborted:
                self.aborted_tokens += sum(completion.num_sampled for completion in made.completions)
                raise GroupAborted(made.completions)
        finally:
            self._aborted.discard(request.group_id)
        verdicts = await self._judge(request, made, on_move, priority)
        return Group(
            group_id=request.group_id,
            prompt=request.prompt,
            prompt_token_ids=made.prompt_token_ids,
            rollouts=tuple(
                [
                    Rollout(completion=completion, verdict=verdict)
                    for completion, verdict in zip(made.completions, verdicts, strict=True)
                ]
            ),
            worker=made.worker,
            prompt_routed_experts=made.prompt_routed_experts,
        )

    @property
    def fleets(self) -> list[Fleet[Any]]:
        """Of all workers that a group passes."""
        environments = [] if self.episodes is None else [self.episodes.environments]
        return [self.rollouts, self.rewards, *environments]

    @property
    def failure(self) -> RayzeroError | None:
        """Why one of the fleets has given up; None as long as none has."""
        return next((fleet.failure for fleet in self.fleets if fleet.failure is not None), None)

    async def abort(self, group_id: int, worker: str) -> None:
        """A group that `worker` generates is not wanted any more: its carrying ends with `GroupAborted`, soon."""
        self._aborted.add(group_id)
        slot = next((slot for slot in self.rollouts.slots if slot.name == worker), None)
        if slot is not None:
            try:
                await slot.live_worker.abort(group_id)
            except (WorkerError, DeadlineError) as error:
                # Its completions end all the same, with the worker if need be; no task waits for them.
                logger.warning("group %d could not be aborted: %s", group_id, error)

    async def _generate(self, request: GroupRequest, on_move: OnMove, worker: str, priority: bool) -> GroupCompletions:
        for attempt in range(1, self.max_attempts + 1):
            if request.group_id in self._aborted:
                raise GroupAborted
            on_move(GroupState.WAITING, "")
            try:
                async with self.rollouts.lease(self.lease_deadline_s, worker, priority) as slot:
                    on_move(GroupState.GENERATING, slot.name)
                    # Its batch waits for it at one worker and one attempt alone.
                    if request.batch is not None and (attempt > 1 or slot.name != worker):
                        request = replace(request, batch=None)
                    if self.episodes is not None:
                        made = await self.episodes.run(request, slot, priority)
                    else:
                        made = await slot.live_worker.generate(request)
                    if made.load is not None:
                        slot.limit.note(made.load, slot.in_flight)
                    return made
            except (WorkerError, DeadlineError) as error:
                if self.rollouts.failure is not None:
                    raise self.rollouts.failure from error
                failure = error
                logger.warning("group %d: generation failed (attempt %d): %s", request.group_id, attempt, error)
        raise WorkerError(f"generation failed {self.max_attempts} times; the last cause: {failure}")

    async def _judge(
        self, request: GroupRequest, made: GroupCompletions, on_move: OnMove, priority: bool
    ) -> tuple[Verdict, ...]:
        """The rubric's verdicts, but for episodes that need none."""
        if self.episodes is None:
            return await self._score(request, made, on_move, priority)

        async def score(completions: Sequence[Completion]) -> tuple[Verdict, ...]:
            return await self._score(request, replace(made, completions=tuple(completions)), on_move, priority)

        return await judged(made.completions, self.episodes.settings.truncated, score)

    async def _score(
        self, request: GroupRequest, made: GroupCompletions, on_move: OnMove, priority: bool
    ) -> tuple[Verdict, ...]:
        verdicts: tuple[Verdict, ...] = ()
        failure: Exception | None = None
        completions = tuple([_without_routing(each) for each in made.completions])
        for attempt in range(1, self.max_attempts + 1):
            try:
                async with self.rewards.lease(self.lease_deadline_s, priority=priority) as slot:
                    on_move(GroupState.SCORING, slot.name)
                    verdicts = await slot.live_worker.score(request.prompt, made.prompt_text, completions)
            except (WorkerError, DeadlineError) as error:
                if self.rewards.failure is not None:
                    raise self.rewards.failure from error
                failure = error
                logger.warning("group %d: scoring failed (attempt %d): %s", request.group_id, attempt, error)
                continue
            if not any([verdict.is_error for verdict in verdicts]):
                break
        if not verdicts:
            raise WorkerError(f"scoring failed {self.max_attempts} times; the last cause: {failure}")
        return verdicts


def _without_routing(completion: Completion) -> Completion:
    """The largest part of a completion, which no rubric reads, is not sent to reward workers."""
    if completion.routed_experts is None:
        return completion
    branches = (replace(branch, completion=_without_routing(branch.completion)) for branch in completion.branches)
    return replace(completion, routed_experts=None, branches=tuple(branches))
