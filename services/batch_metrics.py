"""What the controller itself can say of a batch: rewards by component, accuracy, lengths, uniform groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from services.evaluation import is_accurate
from services.schema.messages import Group, VerdictStatus


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


def with_kl(groups: Sequence[Group], rollout_kl: Mapping[int, tuple[float, ...]]) -> list[Group]:
    """The groups of a batch, each rollout with what its update said of it (`UpdateResult.rollout_kl`)."""
    return [_with_kl(group, rollout_kl[group.group_id]) if group.group_id in rollout_kl else group for group in groups]


def _with_kl(group: Group, values: tuple[float, ...]) -> Group:
    rollouts = (
        rollout if math.isnan(value) else dataclasses.replace(rollout, kl_rollout=value)
        for rollout, value in zip(group.rollouts, values, strict=True)
    )
    return dataclasses.replace(group, rollouts=tuple(rollouts))


def _is_uniform(group: Group) -> bool:
    rewards = {r.verdict.reward for r in group.rollouts if r.verdict.status is not VerdictStatus.ERROR}
    return len(rewards) <= 1


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
