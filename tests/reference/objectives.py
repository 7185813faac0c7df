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
        if name == "mean_normalised":
            advantages.append((reward - mean) / mean if mean > 1e-8 else 0.0)
            continue
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
    if name in ("std_normalised", "mean_centred", "leave_one_out", "mean_normalised"):
        return [group_advantages(group, name) for group in groups]
    centred = [group_advantages(g, "mean_centred") for g in groups] if name == "centred_batch_normalised" else groups
    valid = [centred[g][i] for g in range(len(groups)) for i in range(len(groups[g])) if not math.isnan(groups[g][i])]
    mean = sum(valid) / len(valid)
    std = math.sqrt(sum((value - mean) ** 2 for value in valid) / len(valid))
    return [
        [0.0 if math.isnan(r) or std < 1e-8 else (centred[g][i] - mean) / std for i, r in enumerate(group)]
        for g, group in enumerate(groups)
    ]


def turn_credits(
    groups: list[list[tuple[list[float | None], float]]], credit: str, discount: float, name: str
) -> list[list[list[float]]]:
    """Of each group's episodes (what was said of each turn, the episode's reward) the advantage of each turn: its own
    reward and all later ones, discounted, among those of all turns of the group."""
    returns: list[list[list[float]]] = []
    for group in groups:
        returns.append([])
        for said, reward in group:
            own = []
            for number, value in enumerate(said):
                if credit == "discounted":
                    own.append(0.0 if value is None else value)
                    continue
                known = [each for each in said[:number] if each is not None]
                before = known[-1] if known else 0.0
                own.append(0.0 if value is None else value - before)
            own[-1] += reward - sum(own)
            turns = range(len(own))
            returns[-1].append([sum(own[k] * discount ** (k - turn) for k in turns if k >= turn) for turn in turns])
    advantages = batch_advantages([[each for episode in group for each in episode] for group in returns], name)
    shared: list[list[list[float]]] = []
    for group_returns, flat in zip(returns, advantages, strict=True):
        rest = iter(flat)
        shared.append([[next(rest) for _ in episode] for episode in group_returns])
    return shared


def gdpo_advantages(groups: list[list[dict[str, tuple[float, float]]]]) -> list[list[float]]:
    """GDPO: of each completion its components' (weight, score); one that is missing does not apply."""
    summed: list[list[float]] = []
    for group in groups:
        totals = [0.0] * len(group)
        for name in {name for parts in group for name in parts}:
            present = [i for i, parts in enumerate(group) if name in parts]
            scores = [group[i][name][1] for i in present]
            mean = sum(scores) / len(scores)
            std = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
            for i in present:
                if len(scores) > 1 and std > 1e-8:
                    totals[i] += group[i][name][0] * (group[i][name][1] - mean) / std
        summed.append(totals)
    flat = [total for g, totals in enumerate(summed) for i, total in enumerate(totals) if groups[g][i]]
    mean = sum(flat) / len(flat)
    std = math.sqrt(sum((total - mean) ** 2 for total in flat) / len(flat))
    return [
        [(total - mean) / std if groups[g][i] and std > 1e-8 else 0.0 for i, total in enumerate(totals)]
        for g, totals in enumerate(summed)
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


def kept(completion: Completion, advantage: float, rules: list[dict[str, Any]]) -> list[bool]:
    """Whether each token passes every rule of rejection."""
    policy, old, rollout = completion["policy"], completion["old"], completion["rollout"]
    ratios = [math.exp(a - b) for a, b in zip(old, rollout, strict=True)]
    passes = [True] * len(ratios)
    for rule in rules:
        low, high = rule.get("low", 0.0), rule.get("high") or math.inf
        if rule["name"] == "token_mask":
            passes = [ok and low <= ratio <= high for ok, ratio in zip(passes, ratios, strict=True)]
            continue
        if rule["name"] == "token_veto":
            whole = all(low <= ratio <= high for ratio in ratios)
        elif rule["name"] == "sequence_mask":
            whole = low <= math.prod(ratios) ** (1 / max(len(ratios), 1) if rule.get("mean") else 1) <= high
        else:
            moved = sum(b - a for a, b in zip(policy, rollout, strict=True)) / max(len(ratios), 1)
            whole = advantage >= 0 or moved <= rule["limit"]
        passes = [ok and whole for ok in passes]
    return passes


def surrogate(ratio: float, advantage: float, low: float, high: float, dual: float | None = None) -> float:
    """min(rho A, clip(rho) A): what is maximised; not below c A of a negative A with a dual clip c."""
    value = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    return max(value, dual * advantage) if dual is not None and advantage < 0 else value


def soft_gate(ratio: float, advantage: float, loss: dict[str, Any]) -> float:
    """SAPO: sigma(tau (rho - 1)) 4 / tau A."""
    tau = loss["tau_positive"] if advantage > 0 else loss["tau_negative"]
    return 4 / tau / (1 + math.exp(-tau * (ratio - 1))) * advantage


CLIPPED = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++")
"""Losses whose ratio, or its weight, is cut between two bounds."""


def completion_values(completion: Completion, advantage: float, loss: dict[str, Any]) -> list[float]:
    """What is maximised for each token of one completion, before correction and denominators."""
    policy, old = completion["policy"], completion["old"]
    name, length, dual = loss["name"], len(policy), loss.get("dual_clip")
    ratios = [math.exp(a - b) for a, b in zip(policy, old, strict=True)]
    if name == "sapo":
        return [soft_gate(ratio, advantage, loss) for ratio in ratios]
    if name not in CLIPPED:
        raise NotImplementedError(f"completion_values has no branch for {name}: write down what it maximises")
    low, high = loss["clip_low"], loss["clip_high"]
    if name == "cispo":
        frozen = completion.get("frozen_ratios", ratios)
        return [min(max(r, 1 - low), 1 + high) * advantage * p for r, p in zip(frozen, policy, strict=True)]
    if name == "gspo":
        return [surrogate(math.prod(ratios) ** (1 / max(length, 1)), advantage, low, high, dual)] * length
    if name == "rloo" or (name == "grpo" and loss["ratio"] == "sequence"):
        return [surrogate(math.prod(ratios), advantage, low, high, dual)] * length
    return [surrogate(ratio, advantage, low, high, dual) for ratio in ratios]


def objective(
    batch: Batch,
    advantages: list[list[float]],
    loss: dict[str, Any],
    correction: dict[str, Any],
    beta: float = 0.0,
    estimator: str = "k3",
    entropy_coefficient: float = 0.0,
    max_completion_tokens: int = 16,
    rejection: list[dict[str, Any]] | None = None,
    unbiased: bool = False,
    aggregation: str | None = None,
    mask_truncated: bool = False,
) -> float:
    """The loss of a batch of groups; a completion with a NaN reward is not there at all."""
    total = 0.0
    live = [group for group in batch if any(not math.isnan(c["reward"]) for c in group)]

    def counted(completion: Completion) -> int:
        masked = math.isnan(completion["reward"]) or (mask_truncated and completion.get("truncated", False))
        return 0 if masked else len(completion["policy"])

    num_tokens = sum(counted(c) for group in live for c in group)
    num_completions = sum(1 for group in live for c in group if not math.isnan(c["reward"]))
    for group, group_advantage in zip(batch, advantages, strict=True):
        size = sum(1 for c in group if not math.isnan(c["reward"]))
        for completion, advantage in zip(group, group_advantage, strict=True):
            if counted(completion) == 0:
                continue
            passes = kept(completion, advantage, rejection or [])
            if correction["name"] == "rollout_as_old":
                completion = {**completion, "old": completion["rollout"]}
            weights = corrections(completion, correction)
            values = completion_values(completion, advantage, loss)
            sum_of_tokens = 0.0
            for t, value in enumerate(values):
                token = -weights[t] * passes[t] * value
                if beta:
                    moved = math.exp(completion["policy"][t] - completion["old"][t]) if unbiased else 1.0
                    token += beta * moved * kl(completion["policy"][t], completion["reference"][t], estimator)
                token -= entropy_coefficient * completion["entropy"][t]
                sum_of_tokens += token
            by_name = aggregation or {
                "grpo": "completion_mean", "gspo": "completion_mean", "sapo": "completion_mean", "dapo": "token_mean",
                "cispo": "token_mean", "reinforce++": "token_mean",
            }.get(loss["name"], loss["name"])  # fmt: skip
            denominators = {
                "completion_mean": len(live) * size * len(values),
                "token_mean": num_tokens,
                "group_token_mean": len(live) * sum(counted(c) for c in group),
                "constant": len(live) * size * max_completion_tokens,
                "dr_grpo": len(live) * size * (loss.get("constant_tokens") or max_completion_tokens),
                "rloo": num_completions * len(values),
            }
            if by_name not in denominators:
                raise NotImplementedError(f"objective has no denominator for {by_name}: name what it is averaged over")
            total += sum_of_tokens / denominators[by_name]
    return total
