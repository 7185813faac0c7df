"""Slow, obvious versions of every advantage, loss, correction and KL: float64, loops, one formula at a time.

Nothing here is shared with learner/: the formulas were written down from the papers, per completion and token. A
completion is a dict of lists; a group is a list of completions; a batch is a list of groups.
"""

from __future__ import annotations

import math
from typing import Any

Completion = dict[str, Any]
"""policy, old, rollout, reference, entropy: lists of T floats; reward: float."""
Batch = list[list[Completion]]


def group_advantages(rewards: list[float], name: str) -> list[float]:
    """std_normalised, mean_centred or leave_one_out of one group, NaN rewards left out and given 0."""
    valid = [reward for reward in rewards if not math.isnan(reward)]
    advantages = []
    for reward in rewards:
        if math.isnan(reward) or len(valid) < 2 or max(valid) == min(valid):
            advantages.append(0.0)
            continue
        mean = sum(valid) / len(valid)
        if name == "leave_one_out":
            advantages.append(reward - (sum(valid) - reward) / (len(valid) - 1))
            continue
        variance = sum((other - mean) ** 2 for other in valid) / len(valid)
        advantages.append((reward - mean) / (math.sqrt(variance) if name == "std_normalised" else 1.0))
    return advantages


def batch_advantages(groups: list[list[float]], name: str) -> list[list[float]]:
    """Every advantage by its recipe name, for a batch of groups of rewards."""
    if name == "none":
        return [[0.0] * len(group) for group in groups]
    if name in ("std_normalised", "mean_centred", "leave_one_out"):
        return [group_advantages(group, name) for group in groups]
    centred = [group_advantages(g, "mean_centred") for g in groups] if name == "centred_batch_normalised" else groups
    valid = [centred[g][i] for g in range(len(groups)) for i in range(len(groups[g])) if not math.isnan(groups[g][i])]
    mean = sum(valid) / len(valid)
    std = math.sqrt(sum((value - mean) ** 2 for value in valid) / len(valid))
    return [
        [0.0 if math.isnan(r) or std < 1e-8 else (centred[g][i] - mean) / std for i, r in enumerate(group)]
        for g, group in enumerate(groups)
    ]


def kl(policy: float, reference: float, estimator: str) -> float:
    """k1, k2, k3 of one token."""
    ratio = math.exp(reference - policy)
    return {
        "k1": policy - reference,
        "k2": (policy - reference) ** 2 / 2,
        "k3": ratio - math.log(ratio) - 1,
    }[estimator]


def corrections(completion: Completion, settings: dict[str, Any]) -> list[float]:
    """Weight of each token, by the correction's name."""
    ratios = [math.exp(old - rollout) for old, rollout in zip(completion["old"], completion["rollout"], strict=True)]
    name = settings["name"]
    if name == "token_truncation":
        return [min(ratio, settings["limit"]) for ratio in ratios]
    if name == "sequence_truncation":
        return [min(math.prod(ratios), settings["limit"])] * len(ratios)
    if name == "icepop":
        return [ratio if settings["low"] <= ratio <= settings["high"] else 0.0 for ratio in ratios]
    if name == "geometric_rejection":
        mean = math.prod(ratios) ** (1 / max(len(ratios), 1))
        return [1.0 if settings["low"] <= mean <= settings["high"] else 0.0] * len(ratios)
    return [1.0] * len(ratios)


def surrogate(ratio: float, advantage: float, low: float, high: float) -> float:
    """min(rho A, clip(rho) A): what is maximised."""
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def completion_values(completion: Completion, advantage: float, loss: dict[str, Any]) -> list[float]:
    """What is maximised for each token of one completion, before correction and denominators."""
    policy, old = completion["policy"], completion["old"]
    low, high, name, length = loss["clip_low"], loss["clip_high"], loss["name"], len(policy)
    ratios = [math.exp(a - b) for a, b in zip(policy, old, strict=True)]
    if name == "cispo":
        frozen = completion.get("frozen_ratios", ratios)
        return [min(max(r, 1 - low), 1 + high) * advantage * p for r, p in zip(frozen, policy, strict=True)]
    if name == "gspo":
        return [surrogate(math.prod(ratios) ** (1 / max(length, 1)), advantage, low, high)] * length
    if name == "rloo" or (name == "grpo" and loss["ratio"] == "sequence"):
        return [surrogate(math.prod(ratios), advantage, low, high)] * length
    return [surrogate(ratio, advantage, low, high) for ratio in ratios]


def objective(
    batch: Batch,
    advantages: list[list[float]],
    loss: dict[str, Any],
    correction: dict[str, Any],
    beta: float = 0.0,
    estimator: str = "k3",
    entropy_coefficient: float = 0.0,
    max_completion_tokens: int = 16,
) -> float:
    """The loss of a batch of groups; a completion with a NaN reward is not there at all."""
    total = 0.0
    live = [group for group in batch if any(not math.isnan(c["reward"]) for c in group)]
    num_tokens = sum(len(c["policy"]) for group in live for c in group if not math.isnan(c["reward"]))
    num_completions = sum(1 for group in live for c in group if not math.isnan(c["reward"]))
    for group, group_advantage in zip(batch, advantages, strict=True):
        size = sum(1 for c in group if not math.isnan(c["reward"]))
        for completion, advantage in zip(group, group_advantage, strict=True):
            if math.isnan(completion["reward"]) or not completion["policy"]:
                continue
            weights = corrections(completion, correction)
            values = completion_values(completion, advantage, loss)
            sum_of_tokens = 0.0
            for t, value in enumerate(values):
                token = -weights[t] * value
                if beta:
                    token += beta * kl(completion["policy"][t], completion["reference"][t], estimator)
                token -= entropy_coefficient * completion["entropy"][t]
                sum_of_tokens += token
            denominator = {
                "grpo": len(live) * size * len(values),
                "gspo": len(live) * size * len(values),
                "dr_grpo": len(live) * size * (loss.get("constant_tokens") or max_completion_tokens),
                "dapo": num_tokens,
                "cispo": num_tokens,
                "reinforce++": num_tokens,
                "rloo": num_completions * len(values),
            }[loss["name"]]
            total += sum_of_tokens / denominator
    return total
