"""Whole updates in float64: transformers' own forward pass, one completion at a time, autograd, AdamW by hand.

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
from torch.func import functional_call
from transformers import AutoModelForCausalLM

Settings = Mapping[str, Any]


@dataclass(kw_only=True)
class Sampled:
    """A completion as an engine gave it and a rubric judged it; then what the models say of it."""

    rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    """(tokens, places of those that were sampled), prompt first: one for a completion, one a path for an episode."""
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

    @property
    def length(self) -> int:
        """T."""
        return sum(len(places) for _, places in self.rows)


Groups = list[list[Sampled]]
Factors = Mapping[str, Tensor]
"""`LAYER.lora_A` [r, in] and `LAYER.lora_B` [out, r]."""
PUBLISHED_ADVANTAGE = {"dr_grpo": "mean_centred", "rloo": "leave_one_out", "reinforce++": "batch_normalised"}
PUBLISHED_MEAN = {
    "grpo": "completion_mean", "gspo": "completion_mean", "sapo": "completion_mean", "dapo": "token_mean",
    "cispo": "token_mean", "reinforce++": "token_mean", "dr_grpo": "constant", "rloo": "completions",
}  # fmt: skip


class Training:
    """A policy over its updates. `reference`: a model, or none where it is the policy at the start."""

    def __init__(
        self,
        model: Path,
        reference: Path | None,
        settings: Settings,
        *,
        temperature: float,
        max_tokens: int,
        num_updates: int = 1,
        factors: Factors | None = None,
    ) -> None:
        """`factors`: of adapters, which are trained in the place of the weights whose name they have."""
        # transformers' faster ways through experts have no float64.
        exact: Any = {"dtype": torch.float64, "experts_implementation": "eager"}
        self.policy = AutoModelForCausalLM.from_pretrained(model, **exact)
        self.teacher = AutoModelForCausalLM.from_pretrained(reference or model, **exact)
        self.base = {name: each.detach().clone() for name, each in self.policy.named_parameters()}
        self.settings, self.temperature, self.max_tokens = settings, temperature, max_tokens
        self.num_updates, self.done = num_updates, 0
        trained = {n: f.detach().double().requires_grad_() for n, f in (factors or {}).items()}
        self.scaling = settings["lora"]["alpha"] / settings["lora"]["rank"] if trained else 0.0
        self.trained: dict[str, Tensor] = trained or dict(self.policy.named_parameters())
        self.adam = _Adam(self.trained, settings.get("optimizer", {}))
        self.adapts = bool(trained)

    def update(self, groups: Groups) -> list[dict[str, Tensor]]:
        """The gradient of every optimizer step that has one, by parameter. `groups` are filled in."""
        with torch.no_grad():
            for each in (each for group in groups for each in group):
                each.old = [float(x) for x in self._scores(each)[0]]
                each.reference = [float(x) for x in _scores(self.teacher, each, self.temperature)[0]]
        _give_advantages(groups, self.settings, self.max_tokens)
        count = self.settings.get("minibatches", 1)
        rate = _rate(self.done, self.num_updates, self.settings.get("optimizer", {}))
        gradients = []
        for step in list(range(count)) * self.settings.get("inner_epochs", 1):
            rows = [(g, each) for g, group in enumerate(groups) if g % count == step for each in group if each.judged]
            loss = _loss([(g, each, *self._scores(each)) for g, each in rows], self.settings, self.max_tokens)
            gradient = {name: torch.zeros_like(each) for name, each in self.trained.items()}
            if loss.requires_grad:
                found = torch.autograd.grad(loss, list(self.trained.values()), allow_unused=True)
                gradient |= {n: each for n, each in zip(self.trained, found, strict=True) if each is not None}
            if any(bool(each.any()) for each in gradient.values()):
                gradients.append(gradient)
                self.adam.step(gradient, rate)
        self.done += 1
        every = self.settings["kl"].get("refresh_every_updates", 0)
        if every and self.done % every == 0:
            weights = {name: each.detach().clone() for name, each in self.weights().items()}
            self.teacher.load_state_dict(weights, strict=False)  # a tied head has no name of its own
        return gradients

    def weights(self) -> dict[str, Tensor]:
        """Of the model, adapters added."""
        if not self.adapts:
            return self.trained
        halves = {name.rpartition(".lora_")[0] for name in self.trained}
        added = {f"{n}.weight": self.trained[f"{n}.lora_B"] @ self.trained[f"{n}.lora_A"] for n in halves}
        return {n: w + self.scaling * added[n] if n in added else w for n, w in self.base.items()}

    def _scores(self, each: Sampled) -> tuple[list[Tensor], list[Tensor]]:
        if not self.adapts:
            return _scores(self.policy, each, self.temperature)
        weights = self.weights()
        return _scores(lambda ids: functional_call(self.policy, weights, (ids,)), each, self.temperature)


def update(
    model: Path, reference: Path | None, groups: Groups, settings: Settings, *, temperature: float, max_tokens: int
) -> list[dict[str, Tensor]]:
    """The gradients of the one update of a run."""
    return Training(model, reference, settings, temperature=temperature, max_tokens=max_tokens).update(groups)


def _scores(model: Any, each: Sampled, temperature: float) -> tuple[list[Tensor], list[Tensor]]:
    """log pi and entropy of each token, scalars."""
    logprobs, entropies = [], []
    for tokens, places in each.rows:
        if not len(places):
            continue
        logits = model(torch.tensor(list(tokens))[None]).logits[0] / temperature
        for place in places:
            row = logits[place - 1].log_softmax(0)
            logprobs.append(row[tokens[place]])
            entropies.append(-(row.exp() * row).sum())
    return logprobs, entropies


def _rate(done: int, num_updates: int, optimizer: Settings) -> float:
    """A line up to the peak, then down to the floor, which the last update has."""
    peak, warmup = optimizer["learning_rate"], optimizer.get("warmup_updates", 0)
    if done < warmup:
        return float(peak * (done + 1) / warmup)
    how = optimizer.get("decay", "constant")
    if how == "constant":
        return float(peak)
    gone = min(1.0, (done - warmup) / max(1, num_updates - warmup - 1))
    left = 1 - gone if how == "linear" else (1 + math.cos(math.pi * gone)) / 2
    return float(peak * (optimizer.get("floor", 0.0) + (1 - optimizer.get("floor", 0.0)) * left))


def _overlong(each: Sampled, loss: Settings, max_tokens: int) -> float:
    """DAPO's soft punishment of the last tokens before the limit."""
    within = loss.get("overlong_tokens", 0)
    beyond = each.length - (max_tokens - within)
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
    """AdamW, decay of matrices alone, the gradient clipped to a global norm."""

    def __init__(self, parameters: Mapping[str, Tensor], optimizer: Settings) -> None:
        self.parameters, self.steps = parameters, 0
        self.betas, self.eps = optimizer.get("betas", (0.9, 0.999)), optimizer.get("eps", 1e-8)
        self.decay, self.max_norm = optimizer.get("weight_decay", 0.0), optimizer.get("max_grad_norm", 1.0)
        self.first = {name: torch.zeros_like(each) for name, each in parameters.items()}
        self.second = {name: torch.zeros_like(each) for name, each in parameters.items()}

    @torch.no_grad()
    def step(self, gradient: Mapping[str, Tensor], rate: float) -> None:
        self.steps += 1
        norm = math.sqrt(sum(float(each.square().sum()) for each in gradient.values()))
        fast, slow = self.betas
        for name, parameter in self.parameters.items():
            clipped = gradient[name] * min(1.0, self.max_norm / norm)
            self.first[name] = fast * self.first[name] + (1 - fast) * clipped
            self.second[name] = slow * self.second[name] + (1 - slow) * clipped**2
            first = self.first[name] / (1 - fast**self.steps)
            second = self.second[name] / (1 - slow**self.steps)
            if parameter.ndim > 1:
                parameter -= rate * self.decay * parameter
            parameter -= rate * first / (second.sqrt() + self.eps)
