"""A whole update in float64: transformers' own forward pass, one completion at a time, autograd, AdamW by hand.

Written from the papers, scalar by scalar, and shares nothing with learner/, nor with objectives.py beside it: a mistake
that both the fast code and the finite differences there have made does not pass here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

Settings = Mapping[str, Any]


@dataclass(kw_only=True)
class Sampled:
    """A completion as an engine gave it and a rubric judged it; then what the models say of it."""

    prompt: Sequence[int]
    tokens: Sequence[int]
    rollout: list[float]
    """[T] log-probabilities of the engine."""
    reward: float
    """NaN: no verdict."""
    parts: Mapping[str, tuple[float, float]]
    """(weight, score) of each component."""
    truncated: bool
    old: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    advantage: float = 0.0

    @property
    def judged(self) -> bool:
        return not math.isnan(self.reward)


Groups = list[list[Sampled]]
PUBLISHED_ADVANTAGE = {"dr_grpo": "mean_centred", "rloo": "leave_one_out", "reinforce++": "batch_normalised"}
PUBLISHED_MEAN = {
    "grpo": "completion_mean", "gspo": "completion_mean", "sapo": "completion_mean", "dapo": "token_mean",
    "cispo": "token_mean", "reinforce++": "token_mean", "dr_grpo": "constant", "rloo": "completions",
}  # fmt: skip


def update(
    model: Path,
    reference: Path,
    groups: Groups,
    settings: Settings,
    *,
    temperature: float,
    max_tokens: int,
    rate: float,
) -> list[dict[str, Tensor]]:
    """The gradient of every optimizer step that has one, by parameter. `groups` are filled in."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    teacher = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float64)
    with torch.no_grad():
        for each in (each for group in groups for each in group):
            each.old = [float(x) for x in _scores(policy, each, temperature)[0]]
            each.reference = [float(x) for x in _scores(teacher, each, temperature)[0]]
    _give_advantages(groups, settings, max_tokens)
    adam = _Adam(dict(policy.named_parameters()), rate)
    count = settings.get("minibatches", 1)
    gradients = []
    for step in list(range(count)) * settings.get("inner_epochs", 1):
        rows = [(g, each) for g, group in enumerate(groups) if g % count == step for each in group if each.judged]
        scored = [(g, each, *_scores(policy, each, temperature)) for g, each in rows]
        policy.zero_grad()
        loss = _loss(scored, settings, max_tokens)
        if loss.requires_grad:
            loss.backward()
        gradient = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in policy.named_parameters()}
        if any(bool(each.any()) for each in gradient.values()):
            gradients.append({name: each.clone() for name, each in gradient.items()})
            adam.step(gradients[-1])
    return gradients


def _scores(model: Any, each: Sampled, temperature: float) -> tuple[list[Tensor], list[Tensor]]:
    """log pi and entropy of each token, scalars."""
    if not len(each.tokens):
        return [], []
    logits = model(torch.tensor([*each.prompt, *each.tokens])[None]).logits[0] / temperature
    logprobs, entropies = [], []
    for t, token in enumerate(each.tokens):
        row = logits[len(each.prompt) - 1 + t].log_softmax(0)
        logprobs.append(row[token])
        entropies.append(-(row.exp() * row).sum())
    return logprobs, entropies


def _overlong(each: Sampled, loss: Settings, max_tokens: int) -> float:
    """DAPO's soft punishment of the last tokens before the limit."""
    within = loss.get("overlong_tokens", 0)
    beyond = len(each.tokens) - (max_tokens - within)
    return -min(1.0, beyond / within) if within and beyond > 0 else 0.0


def _give_advantages(groups: Groups, settings: Settings, max_tokens: int) -> None:
    kl = settings["kl"]
    name = settings.get("advantage") or PUBLISHED_ADVANTAGE.get(settings["loss"]["name"], "std_normalised")
    everyone = [each for group in groups for each in group if each.judged]
    shaped = {id(each): _overlong(each, settings["loss"], max_tokens) for each in everyone}
    rewards = {id(each): each.reward + shaped[id(each)] for each in everyone}
    if kl["beta"] and kl.get("place") == "reward":
        for each in everyone:
            pairs = zip(each.old, each.reference, strict=True)
            rewards[id(each)] -= kl["beta"] * sum(float(_kl(a - b, kl.get("estimator", "k1"))) for a, b in pairs)
    for group in groups:
        alive = [each for each in group if each.judged]
        mean, std = _mean_std([rewards[id(each)] for each in alive])
        for each in alive:
            x = rewards[id(each)]
            others = [rewards[id(other)] for other in alive if other is not each]
            each.advantage = {
                "std_normalised": (x - mean) / std if std > 1e-8 else 0.0,
                "mean_centred": x - mean if std > 1e-8 else 0.0,
                "leave_one_out": x - sum(others) / len(others) if std > 1e-8 else 0.0,
                "mean_normalised": (x - mean) / mean if mean > 1e-8 and std > 1e-8 else 0.0,
                "centred_batch_normalised": x - mean if std > 1e-8 else 0.0,
                "batch_normalised": x,
                "component_normalised": 0.0,
                "none": 0.0,
            }[name]
        if name == "component_normalised":
            _add_components(alive, shaped)
    if name.endswith("batch_normalised") or name == "component_normalised":
        mean, std = _mean_std([each.advantage for each in everyone])
        for each in everyone:
            each.advantage = (each.advantage - mean) / std if std > 1e-8 else 0.0
    for each in everyone:
        if abs(each.advantage) < 1e-8:  # 0 but for rounding
            each.advantage = 0.0


def _add_components(alive: list[Sampled], added: Mapping[int, float]) -> None:
    """GDPO; what is taken off for length is a component of its own."""
    columns: dict[str, list[tuple[Sampled, float, float]]] = {}
    for each in alive:
        for name, (weight, score) in {**each.parts, "length": (1.0, added[id(each)])}.items():
            columns.setdefault(name, []).append((each, weight, score))
    for column in columns.values():
        mean, std = _mean_std([score for _, _, score in column])
        for each, weight, score in column:
            each.advantage += weight * (score - mean) / std if std > 1e-8 else 0.0


def _mean_std(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / max(len(values), 1)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values), 1))


def _loss(scored: list[tuple[int, Sampled, list[Tensor], list[Tensor]]], settings: Settings, max_tokens: int) -> Tensor:
    masks = settings.get("truncated") == "mask"
    lengths = [0 if masks and each.truncated else len(logprobs) for _, each, logprobs, _ in scored]
    indices = [g for g, _, _, _ in scored]
    loss, kl = settings["loss"], settings["kl"]
    bypass = settings["correction"]["name"] == "rollout_as_old"
    total = torch.zeros((), dtype=torch.float64)
    for (g, each, policy, entropies), length in zip(scored, lengths, strict=True):
        if not length:
            continue
        before = each.rollout if bypass else each.old
        ratios = [torch.exp(p - b) for p, b in zip(policy, before, strict=True)]
        values, weights = _values(policy, ratios, each.advantage, loss), _weights(each, policy, settings)
        groups, size = len(set(indices)), indices.count(g)
        of_group = sum(n for index, n in zip(indices, lengths, strict=True) if index == g)
        share = (
            1
            / {
                "completion_mean": groups * size * length,
                "token_mean": sum(lengths),
                "group_token_mean": groups * of_group,
                "constant": groups * size * (loss.get("constant_tokens") or max_tokens),
                "completions": len(scored) * length,
            }[settings.get("aggregation") or PUBLISHED_MEAN[loss["name"]]]
        )
        for t in range(length):
            token = -weights[t] * values[t] - settings.get("entropy_coefficient", 0.0) * entropies[t]
            if kl["beta"] and kl.get("place") != "reward":
                estimate = _kl(policy[t] - each.reference[t], kl.get("estimator", "k3"))
                token = token + kl["beta"] * (ratios[t] * estimate if kl.get("unbiased") else estimate)
            total = total + share * token
    return total


def _kl(log_ratio: Any, estimator: str) -> Any:
    """Of log(pi / pi_ref)."""
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    inverse = torch.exp(-log_ratio) if isinstance(log_ratio, Tensor) else math.exp(-log_ratio)
    return inverse + log_ratio - 1


def _values(policy: list[Tensor], ratios: list[Tensor], advantage: float, loss: Settings) -> list[Tensor]:
    """What is maximised, a token."""
    name, length = loss["name"], len(ratios)
    if name == "sapo":
        tau = loss["tau_positive"] if advantage > 0 else loss["tau_negative"]
        return [torch.sigmoid(tau * (ratio - 1)) * 4 / tau * advantage for ratio in ratios]
    low, high = 1 - loss["clip_low"], 1 + loss["clip_high"]
    if name == "cispo":
        return [min(max(float(r.detach()), low), high) * advantage * p for r, p in zip(ratios, policy, strict=True)]
    if name == "gspo" or name == "rloo" or loss.get("ratio") == "sequence":
        product = torch.stack(ratios).prod()
        ratios = [product ** (1 / length) if name == "gspo" else product] * length
    return [_surrogate(ratio, advantage, low, high, loss.get("dual_clip")) for ratio in ratios]


def _surrogate(ratio: Tensor, advantage: float, low: float, high: float, dual: float | None) -> Tensor:
    value = min(ratio * advantage, ratio.clamp(low, high) * advantage, key=torch.Tensor.item)
    if dual is not None and advantage < 0:
        value = max(value, torch.full_like(value, dual * advantage), key=torch.Tensor.item)
    return value


def _weights(each: Sampled, policy: list[Tensor], settings: Settings) -> list[float]:
    """Correction and rejection: of each token a number."""
    ratios = [math.exp(a - b) for a, b in zip(each.old, each.rollout, strict=True)]
    product, length, how = math.prod(ratios), len(ratios), settings["correction"]
    weights = {
        "token_truncation": lambda: [min(ratio, how["limit"]) for ratio in ratios],
        "sequence_truncation": lambda: [min(product, how["limit"])] * length,
        "icepop": lambda: [ratio if how["low"] <= ratio <= how["high"] else 0.0 for ratio in ratios],
        "geometric_rejection": lambda: [float(how["low"] <= product ** (1 / length) <= how["high"])] * length,
        "rollout_as_old": lambda: [1.0] * length,
        "none": lambda: [1.0] * length,
    }[how["name"]]()
    for rule in settings.get("rejection", ()):
        low, high = rule.get("low", 0.0), rule.get("high", math.inf)
        drift = sum(b - float(p.detach()) for b, p in zip(each.rollout, policy, strict=True)) / length
        stays = {
            "token_mask": [low <= ratio <= high for ratio in ratios],
            "token_veto": [min(ratios) >= low and max(ratios) <= high] * length,
            "sequence_mask": [low <= product ** (1 / length if rule.get("mean") else 1) <= high] * length,
            "off_policy_mask": [each.advantage >= 0 or drift <= rule.get("limit", 0.5)] * length,
        }[rule["name"]]
        weights = [weight if stay else 0.0 for weight, stay in zip(weights, stays, strict=True)]
    return weights


class _Adam:
    """AdamW with torch's defaults and without decay, the gradient clipped to norm 1."""

    def __init__(self, parameters: Mapping[str, Tensor], rate: float) -> None:
        self.parameters, self.rate, self.steps = parameters, rate, 0
        self.first = {name: torch.zeros_like(each) for name, each in parameters.items()}
        self.second = {name: torch.zeros_like(each) for name, each in parameters.items()}

    @torch.no_grad()
    def step(self, gradient: Mapping[str, Tensor]) -> None:
        self.steps += 1
        norm = math.sqrt(sum(float(each.square().sum()) for each in gradient.values()))
        for name, parameter in self.parameters.items():
            clipped = gradient[name] / max(1.0, norm)
            self.first[name] = 0.9 * self.first[name] + 0.1 * clipped
            self.second[name] = 0.999 * self.second[name] + 0.001 * clipped**2
            first = self.first[name] / (1 - 0.9**self.steps)
            second = self.second[name] / (1 - 0.999**self.steps)
            parameter -= self.rate * first / (second.sqrt() + 1e-8)
