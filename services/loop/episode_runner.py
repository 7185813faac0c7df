"""Carries a group as episodes: environment workers drive them, side by side, at one engine."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.fleet.slots import WorkerSlot
from rayzero.services.loop.common_prompt import common_routing, with_common_prompt
from rayzero.services.schema.config.environment import EpisodeSettings
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest
from rayzero.services.schema.errors import DeadlineError, EngineFailed, RayzeroError, WorkerError
from rayzero.services.schema.interfaces import EnvironmentWorker, RolloutWorker
from rayzero.services.schema.messages import GroupBatch, GroupCompletions, GroupRequest

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class EpisodeRunner:
    """From a `GroupRequest` to the completions of as many episodes as it has."""

    environments: Fleet[EnvironmentWorker]
    settings: EpisodeSettings
    max_attempts: int
    lease_deadline_s: float

    async def run(
        self, request: GroupRequest, engine: WorkerSlot[RolloutWorker], priority: bool = False
    ) -> GroupCompletions:
        """All episodes of a group, at one engine. One whose environment fails is tried again, elsewhere where there is
        another worker.

        Raises:
            WorkerError: the engine failed, or no environment worker brought an episode to its end.
            PromptRefused: the model cannot be given the prompt.
        """
        begun = time.monotonic()
        wanted = self._dealt(request)
        tasks = [
            asyncio.create_task(self._episode(self._request(request, index), engine, name, priority))
            for index, name in enumerate(wanted)
        ]
        try:
            records = await asyncio.gather(*tasks)
        except BaseException as error:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if isinstance(error, EngineFailed):
                raise WorkerError(str(error)) from None
            await self._end_sessions(request.group_id, engine)
            raise
        prompt, completions = with_common_prompt(records)
        return GroupCompletions(
            group_id=request.group_id,
            prompt_token_ids=prompt,
            prompt_text=records[0].prompt_text,
            completions=completions,
            worker=engine.name,
            seconds=time.monotonic() - begun,
            prompt_routed_experts=common_routing(records, len(prompt)),
        )

    def _dealt(self, request: GroupRequest) -> list[str]:
        """Which worker drives which episode: by position where the batch is computed in lockstep, however many that
        are; elsewhere the least loaded (an empty name)."""
        number = request.sampling.num_completions
        names = sorted(slot.name for slot in self.environments.serving()) if request.batch is not None else []
        return [names[index % len(names)] for index in range(number)] if names else [""] * number

    def _request(self, request: GroupRequest, index: int) -> EpisodeRequest:
        sampling, limits, batch = request.sampling, self.settings.limits, request.batch
        number = sampling.num_completions
        seed = request.group_id if sampling.seed is None else sampling.seed
        return EpisodeRequest(
            group_id=request.group_id,
            index=index,
            prompt=request.prompt,
            sampling=replace(
                sampling,
                num_completions=1,
                max_tokens=limits.turn_tokens or sampling.max_tokens,
                seed=None if sampling.seed is None else sampling.seed + index,
            ),
            environment_seed=seed % 2**63,
            wave=None if batch is None else GroupBatch(batch_id=batch.batch_id, size=batch.size * number),
        )

    async def _episode(
        self, request: EpisodeRequest, engine: WorkerSlot[RolloutWorker], wanted: str, priority: bool
    ) -> EpisodeRecord:
        record: EpisodeRecord | None = None
        failure: RayzeroError | None = None
        for attempt in range(1, self.max_attempts + 1):
            try:
                async with self.environments.lease(self.lease_deadline_s, wanted, priority) as slot:
                    record = await slot.live_worker.run_episode(request, engine.live_worker)
                    if record.completion.end is not EpisodeEnd.ENVIRONMENT_ERROR:
                        return record
            except (WorkerError, DeadlineError) as error:
                if self.environments.failure is not None:
                    raise self.environments.failure from error
                failure = error
            what = failure if record is None or record.completion.outcome is None else record.completion.outcome.reason
            logger.warning("group %d episode %d: attempt %d: %s", request.group_id, request.index, attempt, what)
            # Its wave waits for it at one worker and one attempt alone.
            request, wanted = replace(request, wave=None), ""
        if record is None:
            raise WorkerError(f"an episode failed {self.max_attempts} times; the last cause: {failure}")
        return record

    async def _end_sessions(self, group_id: int, engine: WorkerSlot[RolloutWorker]) -> None:
        """What is left of the group at its engine."""
        try:
            await engine.live_worker.abort(group_id)
        except (WorkerError, DeadlineError) as error:
            logger.warning("the sessions of group %d could not be ended: %s", group_id, error)
