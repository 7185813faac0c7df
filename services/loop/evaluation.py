"""Held-out accuracy, from the engines that train, without a stop of the training."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayzero.services.loop.deterministic_dispatch import assign
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.messages import Group, GroupRequest, Prompt, Rollout, Sampling, VerdictStatus

ACCURACY = "accuracy"
"""The component that counts as accuracy where a rubric has one; elsewhere a rollout is accurate when it is correct."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one pass over the held-out prompts showed."""

    policy_version: int
    accuracy: float
    reward_mean: float
    completion_tokens_mean: float
    truncated_share: float
    num_errors: int
    """Completions without a verdict: they count neither for nor against."""
    groups: tuple[Group, ...]

    @property
    def versions(self) -> tuple[int, int]:
        """The policy versions of the oldest and of the newest token: both `policy_version`, where no weights came
        meanwhile."""
        completions = [rollout.completion for group in self.groups for rollout in group.rollouts]
        oldest = min((completion.oldest_version for completion in completions), default=self.policy_version)
        return oldest, max((completion.newest_version for completion in completions), default=self.policy_version)


@dataclass(slots=True)
class Evaluator:
    """Runs the same prompts with the same seeds every time, so that two evaluations differ by their weights alone."""

    runner: GroupRunner
    prompts: Sequence[Prompt]
    sampling: Sampling
    deterministic: bool = False
    """Deal the prompts out by position: for a synchronous run, whose evaluations have the engines to themselves."""

    async def run(self, policy_version: int) -> Evaluation:
        """Sample and judge every held-out prompt.

        Raises:
            RunHalted: not one verdict could be had.
        """
        requests = [self._request(index, prompt) for index, prompt in enumerate(self.prompts)]
        workers = [slot.name for slot in self.runner.rollouts.serving()] if self.deterministic else []
        if workers:
            assigned = assign(requests, workers, f"evaluation {policy_version}")
            runs = [self.runner.run(dealt.request, worker=dealt.worker) for dealt in assigned]
        else:
            # Ahead of the training groups that wait: until it is done the next weights may have to wait for it.
            runs = [self.runner.run(request, priority=True) for request in requests]
        groups = await asyncio.gather(*runs)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        judged = [rollout for group in groups for rollout in group.judged]
        if not judged:
            cause = rollouts[0].verdict.reason if rollouts else "no held-out prompts"
            raise RunHalted(f"evaluation at version {policy_version}: every verdict is an error; the first: {cause}")
        return Evaluation(
            policy_version=policy_version,
            accuracy=mean([is_accurate(rollout) for rollout in judged]),
            reward_mean=mean([rollout.verdict.reward for rollout in judged]),
            completion_tokens_mean=mean([rollout.completion.num_tokens for rollout in rollouts]),
            truncated_share=mean([rollout.completion.finish_reason == "length" for rollout in rollouts]),
            num_errors=len(rollouts) - len(judged),
            groups=tuple(groups),
        )

    def _request(self, index: int, prompt: Prompt) -> GroupRequest:
        seed = None if self.sampling.seed is None else self.sampling.seed + index * self.sampling.num_completions
        sampling = Sampling(
            num_completions=self.sampling.num_completions,
            max_tokens=self.sampling.max_tokens,
            temperature=self.sampling.temperature,
            seed=seed,
        )
        # Negative: evaluation groups are not in the ledger.
        return GroupRequest(group_id=-1 - index, prompt=prompt, sampling=sampling)


def is_accurate(rollout: Rollout) -> bool:
    """Whether a rollout counts towards accuracy."""
    score = rollout.verdict.components.get(ACCURACY)
    return rollout.verdict.status is VerdictStatus.CORRECT if score is None else score >= 1.0


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN of none."""
    return sum(values) / len(values) if values else math.nan
