"""A proof that an engine computes what the learner would: both score the same tokens after a sync.

Digests prove that the bytes arrived; the canary proves that they were loaded where they belong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import DeadlineError, WeightSyncError, WorkerError
from rayzero.services.schema.interfaces import LearnerHandle, RolloutWorker
from rayzero.services.schema.messages import Group

MAX_TOKENS = 64
"""Scored of a completion: enough for a mean, and milliseconds on any engine."""

LIMITS = {"float32": 0.002, "bfloat16": 0.25}
"""Mean difference of a log-probability that rounding never reaches."""


@dataclass(slots=True)
class Canary:
    """Tokens that both sides score; `learn` takes them from the run's own groups."""

    every_syncs: int
    max_difference: float
    max_model_tokens: int = 1024
    """An engine scores prompts that leave room for one token more."""
    _tokens: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    @staticmethod
    def of(recipe: Recipe) -> Canary:
        """As the recipe wants it."""
        settings = recipe.rollout
        limit = settings.canary_max_difference or LIMITS[recipe.model.dtype]
        return Canary(
            every_syncs=settings.canary_every_syncs, max_difference=limit, max_model_tokens=settings.max_model_tokens
        )

    def learn(self, groups: Sequence[Group]) -> None:
        """Take the tokens of these groups' longest completion as the ones to score from now on."""
        longest, best = 1, None  # one token would not make a mean
        for group in groups:
            room = min(MAX_TOKENS, self.max_model_tokens - 1 - len(group.prompt_token_ids))
            for rollout in group.rollouts:
                number = min(room, rollout.completion.num_tokens)
                if number > longest:
                    longest, best = number, (group.prompt_token_ids, rollout.completion.token_ids[:number])
        self._tokens = best or self._tokens

    def is_due(self, policy_version: int) -> bool:
        """Whether every worker is to be tried after this sync."""
        return self.every_syncs > 0 and policy_version % self.every_syncs == 0

    async def try_all(self, learner: LearnerHandle, workers: Sequence[RolloutWorker]) -> list[Exception | None]:
        """What is wrong with each worker, None where nothing is. The learner must hold the weights that they serve."""
        if self._tokens is None or self.every_syncs == 0 or not workers:
            return [None] * len(workers)
        expected = await learner.logprobs(*self._tokens)
        return list(await asyncio.gather(*(self._try(worker, expected) for worker in workers)))

    async def _try(self, worker: RolloutWorker, expected: NDArray[np.float32]) -> Exception | None:
        assert self._tokens is not None
        try:
            found = await worker.logprobs(*self._tokens)
        except (WorkerError, DeadlineError) as error:
            return error
        difference = float(np.abs(found - expected).mean())
        if difference <= self.max_difference:
            return None
        return WeightSyncError(
            f"{worker.name} scores the canary's {len(expected)} tokens {difference:.3g} nats a token away from the "
            f"learner (limit {self.max_difference:g}): it does not hold the learner's weights"
        )
