"""A proof that an engine computes what the learner would: both score the same tokens after a sync.

Digests prove that the bytes arrived; the canary proves that they were loaded where they belong. Where generation and
learning overlap it is also what the k3-KL at equal weights is taken from: hardly a token that is trained on there was
sampled from the very weights that train on it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.config.learner import WatchSettings
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import DeadlineError, RunHalted, WeightSyncError, WorkerError
from rayzero.services.schema.interfaces import LearnerHandle, RolloutWorker
from rayzero.services.schema.messages import Completion, Group
from rayzero.services.schema.recent_kl import REMEDY, RecentKl

Sample = tuple[NDArray[np.int32], NDArray[np.int32]]
"""(prompt tokens, completion tokens)"""

MAX_TOKENS = 64
"""Scored of a completion: milliseconds on any engine."""
MAX_COMPLETIONS = 8
"""Scored at a time: together enough for a mean that no one token decides."""
PATIENCE_S = 5.0
"""An engine that is too busy to score so soon is not waited for where only the KL is wanted: weights wait for it."""

LIMITS = {"float32": 0.002, "float16": 0.05, "bfloat16": 0.25}
"""Mean difference of a log-probability that rounding never reaches."""


@dataclass(slots=True)
class Canary:
    """Tokens that both sides score; `learn` takes them from the run's own groups."""

    every_syncs: int
    max_difference: float
    max_model_tokens: int = 1024
    """An engine scores prompts that leave room for one token more."""
    always: bool = False
    """Compare one engine after every sync, in turn: what a run that overlaps generation and learning is watched by."""
    recent: RecentKl = field(default_factory=RecentKl)
    """What `check_kl` looks back at: short completions are too few tokens for one comparison to stop a run."""
    _samples: tuple[Sample, ...] = ()

    @staticmethod
    def of(recipe: Recipe) -> Canary:
        """As the recipe wants it."""
        settings = recipe.rollout
        return Canary(
            every_syncs=settings.canary_every_syncs,
            max_difference=settings.canary_max_difference or LIMITS[recipe.model.dtype],
            max_model_tokens=settings.max_model_tokens,
            always=settings.canary_every_syncs > 0 and not recipe.training.is_synchronous,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens that are scored."""
        return sum(len(tokens) for _, tokens in self._samples)

    def learn(self, groups: Sequence[Group]) -> None:
        """Take the tokens of these groups' longest completions as the ones to score from now on."""
        found: list[Sample] = []
        num_whole = 0
        for group in groups:
            room = min(MAX_TOKENS, self.max_model_tokens - 1 - len(group.prompt_token_ids))
            for rollout in group.rollouts:
                number = min(room, _num_leading(rollout.completion))
                if number > 1:  # one token would not make a mean
                    found.append((group.prompt_token_ids, rollout.completion.token_ids[:number]))
                    num_whole += number == MAX_TOKENS
            if num_whole >= MAX_COMPLETIONS:
                break  # none of a large batch's other completions would be scored further
        longest = heapq.nlargest(MAX_COMPLETIONS, found, key=lambda sample: len(sample[1]))
        self._samples = tuple(longest) or self._samples

    def is_due(self, policy_version: int) -> bool:
        """Whether every worker is to be tried after this sync."""
        return self.every_syncs > 0 and policy_version % self.every_syncs == 0

    async def try_all(
        self, learner: LearnerHandle, workers: Sequence[RolloutWorker]
    ) -> tuple[list[Exception | None], float]:
        """What is wrong with each worker, None where nothing is; and the largest k3-KL of a worker that passed, NaN
        where there is none. The learner must hold the weights that they serve."""
        if not self._samples or self.every_syncs == 0 or not workers:
            return [None] * len(workers), math.nan
        expected = await self._scores(learner)
        tried = await asyncio.gather(*(self._try(worker, expected) for worker in workers))
        problems = [one if isinstance(one, Exception) else None for one in tried]
        return problems, max((one for one in tried if not isinstance(one, Exception)), default=math.nan)

    async def compare(self, learner: LearnerHandle, worker: RolloutWorker) -> float:
        """The k3-KL between learner and one worker that serves the learner's weights; NaN where it does not answer in
        time, or there is nothing to score yet."""
        if not self._samples:
            return math.nan
        expected = await self._scores(learner)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return _k3(expected, await self._scores(worker))
        except (WorkerError, DeadlineError, TimeoutError):
            return math.nan

    async def _try(self, worker: RolloutWorker, expected: NDArray[np.float32]) -> Exception | float:
        try:
            found = await self._scores(worker)
        except (WorkerError, DeadlineError) as error:
            return error
        difference = float(np.abs(found - expected).mean())
        if difference <= self.max_difference:
            return _k3(expected, found)
        return WeightSyncError(
            f"{worker.name} scores the canary's {len(expected)} tokens {difference:.3g} nats a token away from the "
            f"learner (limit {self.max_difference:g}): it does not hold the learner's weights"
        )

    async def _scores(self, side: LearnerHandle | RolloutWorker) -> NDArray[np.float32]:
        parts = await asyncio.gather(*(side.logprobs(prompt, tokens) for prompt, tokens in self._samples))
        return np.concatenate(parts)


def _num_leading(completion: Completion) -> int:
    """Tokens that were sampled before an environment spoke: a KL is estimated from no others."""
    sampled = completion.is_sampled
    return completion.num_tokens if sampled is None else int(np.argmin(np.append(sampled, False)))


def check_kl(
    last: float, num_tokens: int, recent: RecentKl, limits: WatchSettings, dtype: str
) -> tuple[list[str], RunHalted | None]:
    """Warnings for the canary's k3-KL, and the halt that it asks for: the limits are those of the learner's watch.
    `last` is that of the newest comparison, of `num_tokens`; NaN where there was none."""
    if math.isnan(last):
        return [], None
    kl, enough = recent.add(last, num_tokens, limits.min_tokens)
    warn, stop = limits.kl_limits(dtype)
    what = (
        "the engine and the learner give {} tokens different probabilities after a weight sync: kl_canary is {:.3g} "
        "nats a token, over {:g}"
    )
    if kl > stop and enough >= limits.min_tokens:
        found = what.format(enough, kl, stop)
        return [f"{found}; {REMEDY}"], RunHalted(
            f"{found}: they do not compute the same model; {REMEDY}. The update before it was applied and is saved"
        )
    # The newest comparison warns by itself: those before it were of an engine that was right, perhaps.
    worst, of_tokens = max((kl, enough), (last, num_tokens))
    return ([f"{what.format(of_tokens, worst, warn)}; {REMEDY}"] if worst > warn else []), None


def _k3(learner: NDArray[np.float32], engine: NDArray[np.float32]) -> float:
    """Mean of pi / pi_rollout - 1 - log(pi / pi_rollout)."""
    # No number from either side is the worst disagreement, not a comparison that was never made.
    gap = np.nan_to_num(learner.astype(np.float64) - engine, nan=np.inf)
    log_ratio = np.clip(gap, -40.0, 40.0)
    return float(np.mean(np.expm1(log_ratio) - log_ratio))
