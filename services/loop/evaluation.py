"""Held-out accuracy, from the engines that train, without a stop of the training."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rayzero.services.loop.deterministic_dispatch import assign
from rayzero.services.loop.estimate import Estimate, estimate
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
    """As sampled, at the evaluation's temperature: a mean over prompts."""
    reward_mean: float
    completion_tokens_mean: float
    truncated_share: float
    num_errors: int
    """Completions without a verdict: they count neither for nor against."""
    groups: tuple[Group, ...]
    standard_error: float = math.nan
    """Of the accuracy, over prompts."""
    greedy_groups: tuple[Group, ...] = ()
    """The most likely answer to every prompt; none where they were not asked for."""
    seconds: float = 0.0
    """From its first request to its last verdict."""

    @property
    def greedy(self) -> Estimate | None:
        """Accuracy of the most likely answers."""
        return accuracy_of(self.greedy_groups) if self.greedy_groups else None

    def figures(self) -> dict[str, float]:
        """Accuracy and its error, as sampled and greedy, and pass@k where a prompt had several answers; by the names
        that files and tables give them."""
        figures = {"accuracy": self.accuracy, "standard_error": self.standard_error}
        any_of, k = pass_at_k(self.groups)
        if k > 1:
            figures |= {
                "pass_at_k": any_of.mean,
                "pass_at_k_standard_error": any_of.standard_error,
                "num_completions": k,
            }
        if (greedy := self.greedy) is not None:
            figures |= {"greedy_accuracy": greedy.mean, "greedy_standard_error": greedy.standard_error}
        return figures

    def row(self) -> dict[str, Any]:
        """All that is recorded of it, the same for files and screens: health is read from either."""
        oldest, newest = self.versions
        return {
            "update": self.policy_version,
            "oldest_version": oldest,
            "newest_version": newest,
            **self.figures(),
            "reward_mean": self.reward_mean,
            "completion_tokens_mean": self.completion_tokens_mean,
            "truncated_share": self.truncated_share,
            "num_errors": self.num_errors,
            "num_prompts": len(self.groups),
            "evaluation_s": self.seconds,
            "time_s": time.time(),
        }

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

    async def run(self, policy_version: int, greedy: Callable[[int, float], bool] | None = None) -> Evaluation:
        """Sample and judge every held-out prompt; where `greedy` wants it of a version with such an accuracy, once more
        at temperature 0, one answer a prompt.

        Raises:
            RunHalted: not one verdict could be had.
        """
        began = time.monotonic()
        groups = await self._judged(policy_version, self.sampling, "")
        accuracy = accuracy_of(groups)
        likeliest: list[Group] = []
        if greedy is not None and greedy(policy_version, accuracy.mean):
            alone = replace(self.sampling, num_completions=1, temperature=0.0)
            is_greedy = self.sampling.temperature == 0.0
            likeliest = groups if is_greedy else await self._judged(policy_version, alone, " greedy")
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        judged = [rollout for group in groups for rollout in group.judged]
        return Evaluation(
            policy_version=policy_version,
            accuracy=accuracy.mean,
            standard_error=accuracy.standard_error,
            reward_mean=mean([rollout.verdict.reward for rollout in judged]),
            completion_tokens_mean=mean([rollout.completion.num_sampled for rollout in rollouts]),
            truncated_share=mean([rollout.completion.is_truncated for rollout in rollouts]),
            num_errors=len(rollouts) - len(judged),
            groups=tuple(groups),
            greedy_groups=tuple(likeliest),
            seconds=time.monotonic() - began,
        )

    async def _judged(self, policy_version: int, sampling: Sampling, which: str) -> list[Group]:
        """Every prompt's group, of which at least one has a verdict."""
        requests = [self._request(index, prompt, sampling) for index, prompt in enumerate(self.prompts)]
        workers = [slot.name for slot in self.runner.rollouts.serving()] if self.deterministic else []
        if workers:
            assigned = assign(requests, workers, f"evaluation {policy_version}{which}")
            runs = [self.runner.run(dealt.request, worker=dealt.worker) for dealt in assigned]
        else:
            # Ahead of the training groups that wait: until it is done the next weights may have to wait for it.
            runs = [self.runner.run(request, priority=True) for request in requests]
        groups = await asyncio.gather(*runs)
        if not any(group.judged for group in groups):
            rollouts = [rollout for group in groups for rollout in group.rollouts]
            cause = rollouts[0].verdict.reason if rollouts else "no held-out prompts"
            raise RunHalted(f"evaluation at version {policy_version}: every verdict is an error; the first: {cause}")
        return groups

    def _request(self, index: int, prompt: Prompt, sampling: Sampling) -> GroupRequest:
        seed = None if sampling.seed is None else sampling.seed + index * sampling.num_completions
        # Negative: evaluation groups are not in the ledger.
        return GroupRequest(group_id=-1 - index, prompt=prompt, sampling=replace(sampling, seed=seed))


def best_version(accuracies: Mapping[int, float]) -> int | None:
    """The version with the highest held-out accuracy as sampled; the newest of equals. None where none is known."""
    return max(accuracies, key=lambda version: (accuracies[version], version), default=None)


def accuracy_of(groups: Sequence[Group]) -> Estimate:
    """Accuracy over prompts: of each the mean of its completions with a verdict; without one it does not count."""
    return estimate([mean([float(is_accurate(r)) for r in group.judged]) for group in groups if group.judged])


def pass_at_k(groups: Sequence[Group]) -> tuple[Estimate, int]:
    """Share of prompts with an accurate one among their k completions, and k; of the prompts whose k all have a
    verdict."""
    k = max((len(group.judged) for group in groups), default=0)
    full = [group.judged for group in groups if len(group.judged) == k]
    return estimate([float(any(is_accurate(r) for r in rollouts)) for rollouts in full]), k


def is_accurate(rollout: Rollout) -> bool:
    """Whether a rollout counts towards accuracy."""
    score = rollout.verdict.components.get(ACCURACY)
    if score is None:
        return rollout.verdict.status is VerdictStatus.CORRECT
    return isinstance(score, int | float) and score >= 1.0  # a recorded one may be anything: it must not end the run


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN of none."""
    return sum(values) / len(values) if values else math.nan
