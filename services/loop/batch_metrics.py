"""Figures of a batch, from its groups alone: rewards, accuracy, lengths, uniform groups.

These figures are computed here and nowhere else, from the groups; the learner adds what an update alone knows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayzero.services.loop.evaluation import is_accurate, mean
from rayzero.services.schema.messages import Group, VerdictStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFigures:
    """One batch. Means and shares are over its judged rollouts; NaN where there are none.

    `row` has each field under its own name, as metrics.jsonl does.
    """

    samples: int
    """Completions with a verdict: those that are trained on."""
    verdict_errors: int
    """Completions without one."""
    reward_mean: float
    reward_std: float
    """Population standard deviation over the whole batch."""
    rewards: Mapping[str, float]
    """Mean score of every reward component, where it gave one; `reward/<name>` in a row."""
    train_accuracy: float
    """Share that counts as accurate (services/loop/evaluation.py), as in an evaluation: 0 … 1."""
    correct_share: float
    """Share whose verdict is `correct`, every weighted component at its full score: 0 … 1."""
    uniform_group_share: float
    """Share of the groups whose rewards are all equal: 0 … 1."""
    completion_tokens: int
    """Sampled ones, of an episode those of all its turns and branches."""
    completion_tokens_mean: float
    completion_tokens_max: float
    truncated_share: float
    """Share that ran out of tokens: 0 … 1."""
    trained_tokens: int
    """Completion tokens, and what they follow: every completion's prompt, and what an episode's environment said."""

    @classmethod
    def of(cls, groups: Sequence[Group]) -> BatchFigures:
        """The figures of a batch."""
        by_group = [group.judged for group in groups]
        judged = [rollout for rollouts in by_group for rollout in rollouts]
        rewards = [rollout.verdict.reward for rollout in judged]
        lengths = [rollout.completion.num_sampled for rollout in judged]
        names = sorted({name for rollout in judged for name in rollout.verdict.components})
        prompts = sum(len(group.prompt_token_ids) * len(each) for group, each in zip(groups, by_group, strict=True))
        correct = VerdictStatus.CORRECT  # an enumeration's member takes longer to look up than to compare
        return cls(
            samples=len(judged),
            verdict_errors=sum(len(group.rollouts) for group in groups) - len(judged),
            reward_mean=mean(rewards),
            reward_std=float(np.std(rewards)) if rewards else math.nan,
            rewards={
                name: mean([r.verdict.components[name] for r in judged if name in r.verdict.components])
                for name in names
            },
            train_accuracy=mean([is_accurate(rollout) for rollout in judged]),
            correct_share=mean([rollout.verdict.status is correct for rollout in judged]),
            uniform_group_share=mean([group.is_uniform for group in groups]),
            completion_tokens=sum(lengths),
            completion_tokens_mean=mean(lengths),
            completion_tokens_max=float(max(lengths)) if lengths else math.nan,
            truncated_share=mean([rollout.completion.is_truncated for rollout in judged]),
            trained_tokens=prompts + sum(rollout.completion.num_path_tokens for rollout in judged),
        )

    def row(self) -> dict[str, float]:
        """By name, as a line of metrics.jsonl has them."""
        named = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "rewards"}
        figures = {name: float(value) for name, value in named.items()}
        return figures | {f"reward/{name}": mean for name, mean in self.rewards.items()}


def with_kl(groups: Sequence[Group], rollout_kl: Mapping[int, tuple[float, ...]]) -> list[Group]:
    """The groups of a batch, each rollout with what its update said of it (`UpdateResult.rollout_kl`)."""
    return [_with_kl(group, rollout_kl[group.group_id]) if group.group_id in rollout_kl else group for group in groups]


def _with_kl(group: Group, values: tuple[float, ...]) -> Group:
    rollouts = (
        rollout if math.isnan(value) else dataclasses.replace(rollout, kl_rollout=value)
        for rollout, value in zip(group.rollouts, values, strict=True)
    )
    return dataclasses.replace(group, rollouts=tuple(rollouts))
