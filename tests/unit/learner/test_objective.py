"""Objectives drawn at random, through real updates of several steps: every gradient against a float64 one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from rayzero.learner.model.policy import Policy
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Group, Rollout, VersionSpan
from tests.reference import whole_update
from tests.reference.whole_update import Sampled
from tests.unit.learner.kit import LENIENT, build_model, make_group

MAX_TOKENS = 16
RATE = 3e-3
ARCHITECTURES = ("llama", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of each architecture, and beside it a reference that is near."""
    root = tmp_path_factory.mktemp("objectives")
    for name in ARCHITECTURES:
        near = AutoModelForCausalLM.from_pretrained(build_model(root / name, name), dtype=torch.float32)
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in near.parameters():
                parameter.add_(0.05 * parameter.abs().mean() * torch.randn_like(parameter))
        near.save_pretrained(root / f"{name}_reference")
        (root / f"{name}_reference" / "tokenizer_config.json").write_text("{}")
    return root


def draw_loss(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(["grpo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++", "sapo"])
    if name == "sapo":
        return {"name": name, "tau_positive": rng.choice([1.0, 4.0]), "tau_negative": rng.choice([1.05, 7.0])}
    low, high = rng.choice([(0.2, 0.28), (0.02, 0.03), (0.1, 0.05)])
    loss: dict[str, Any] = {"name": name, "clip_low": low, "clip_high": high}
    if name == "grpo":
        loss["ratio"] = rng.choice(["token", "sequence"])
    if name == "dapo":
        loss["overlong_tokens"] = rng.choice([0, 8])
    if name != "cispo" and rng.random() < 0.4:
        loss["dual_clip"] = rng.choice([1.05, 3.0])
    return loss


def draw_settings(rng: random.Random) -> dict[str, Any]:
    """Any objective with any correction, rules, denominators and number of steps."""
    rules: list[dict[str, Any]] = [
        {"name": "token_mask", "low": 0.85, "high": 1.2}, {"name": "token_veto", "low": 0.7},
        {"name": "sequence_mask", "high": 1.2}, {"name": "sequence_mask", "low": 0.93, "high": 1.07, "mean": True},
        {"name": "off_policy_mask", "limit": 0.03},
    ]  # fmt: skip
    advantage = rng.choice([
        None, None, "std_normalised", "mean_centred", "leave_one_out", "batch_normalised", "centred_batch_normalised",
        "mean_normalised", "component_normalised", "component_normalised", "none",
    ])  # fmt: skip
    in_loss: dict[str, Any] = {"beta": 0.3, "estimator": rng.choice(["k2", "k3"]), "unbiased": rng.random() < 0.5}
    in_reward: dict[str, Any] = rng.choice([{}, {"estimator": "k2"}, {"estimator": "k3"}])
    kl: dict[str, Any] = rng.choice([
        {"beta": 0.0}, {"beta": 0.0}, in_loss, {"beta": 0.3, "estimator": "k1", "unbiased": True},
        {"beta": 0.05, "place": "reward", **in_reward},
    ])  # fmt: skip
    if (advantage in ("none", "component_normalised") and kl.get("place") == "reward") or advantage == "none":
        kl = in_loss
    return {
        "loss": draw_loss(rng),
        "correction": rng.choice([
            {"name": "token_truncation", "limit": rng.choice([2.0, 1.05])},
            {"name": "sequence_truncation", "limit": 1.2}, {"name": "icepop", "low": 0.9, "high": 1.1},
            {"name": "geometric_rejection", "low": 0.95, "high": 1.05}, {"name": "rollout_as_old"},
            {"name": "rollout_as_old"}, {"name": "none"},
        ]),
        "rejection": [rule for rule in rules if rng.random() < 0.2],
        "advantage": advantage,
        "kl": kl,
        "entropy_coefficient": rng.choice([0.0, 0.0, 0.01]),
        "aggregation": rng.choice([None, None, "completion_mean", "token_mean", "group_token_mean", "constant"]),
        "truncated": rng.choice(["train", "mask"]),
        "inner_epochs": rng.choice([1, 1, 2]),
        "minibatches": rng.choice([1, 1, 2, 3]),
    }  # fmt: skip


def draw_groups(rng: random.Random, learner: Learner) -> tuple[list[Group], whole_update.Groups]:
    """Ragged groups, of all sizes from 1: empty, cut off, stale and unjudged completions, by an engine that is near."""
    noise = np.random.default_rng(rng.randrange(2**31))
    groups, plain = [], []
    for index in range(rng.choice([2, 3, 4])):
        size = rng.choice([1, 2, 3, 5])
        rewards = [rng.choice([0.0, 1.0, 0.3]) for _ in range(size)] if rng.random() < 0.8 else [1.0] * size
        group = make_group(
            noise,
            [rng.choice([0, 1, 2, 5, 9, MAX_TOKENS]) for _ in range(size)],
            [reward if rng.random() > 0.1 else math.nan for reward in rewards],
            group_id=index,
            prompt_length=rng.choice([1, 4, 11]),
        )
        rollouts = tuple(_sampled(rng, noise, learner, group, rollout) for rollout in group.rollouts)
        groups.append(replace(group, rollouts=rollouts))
        plain.append([_plain(group, rollout) for rollout in rollouts])
    return groups, plain


def _sampled(
    rng: random.Random, noise: np.random.Generator, learner: Learner, group: Group, rollout: Rollout
) -> Rollout:
    completion, verdict = rollout.completion, rollout.verdict
    scores = learner.score(group.prompt_token_ids, completion.token_ids)
    near = (scores + rng.choice([0.02, 0.15]) * noise.standard_normal(len(scores))).astype(np.float32)
    half = len(scores) // 2
    spans = completion.version_spans
    if half and rng.random() < 0.5:
        older = VersionSpan(start=0, end=half, policy_version=-1)
        spans = (older, VersionSpan(start=half, end=len(scores), policy_version=0))
    parts = {"answer": (1.0, verdict.reward), "form": (0.2, float(noise.integers(0, 2)))}
    if rng.random() < 0.2:
        del parts["form"]
    return replace(
        rollout,
        completion=replace(
            completion,
            rollout_logprobs=near,
            version_spans=spans,
            finish_reason="length" if rng.random() < 0.3 else "stop",
        ),
        verdict=replace(verdict, parts=None if verdict.is_error else parts),
    )


def _plain(group: Group, rollout: Rollout) -> Sampled:
    completion, verdict = rollout.completion, rollout.verdict
    prompt, tokens = group.prompt_token_ids.tolist(), completion.token_ids.tolist()
    return Sampled(
        rows=[([*prompt, *tokens], range(len(prompt), len(prompt) + len(tokens)))],
        rollout=completion.rollout_logprobs.astype(np.float64).tolist(),
        reward=verdict.reward,
        parts=verdict.parts or {},
        truncated=completion.finish_reason == "length",
    )


def make(models: Path, name: str, settings: Mapping[str, Any], temperature: float, **compute: Any) -> Learner:
    content = {key: value for key, value in settings.items() if value is not None}
    reference = models / f"{name}_reference" if settings["kl"]["beta"] else None
    content["kl"] = settings["kl"] | ({"reference": str(reference)} if reference else {})
    read = LearnerSettings.model_validate(
        content | {"compute": compute, "watch": LENIENT, "optimizer": {"learning_rate": RATE}}
    )
    policy = Policy(
        models / name, dtype="float32", temperature=temperature, compute=read.compute, reference_path=reference
    )
    return Learner(policy, read, num_updates=10, max_completion_tokens=MAX_TOKENS)


def gradients_of(learner: Learner, groups: list[Group]) -> list[dict[str, Tensor]]:
    """Those that the update hands to AdamW, which makes its steps."""
    caught: list[dict[str, Tensor]] = []
    step, names = learner.optimizer.step, [name for name, _ in learner.policy.named_parameters()]

    def catch(learning_rate: float, grad_norm: float) -> None:
        found = learner.optimizer.gradients()
        caught.append({name: each.double().clone() for name, each in zip(names, found, strict=True)})
        step(learning_rate, grad_norm)

    learner.optimizer.step = catch  # type: ignore[method-assign]
    learner.update(groups, 1)
    return caught


def distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    apart = math.sqrt(sum(float((found[name] - each).square().sum()) for name, each in wanted.items()))
    return apart / math.sqrt(sum(float(each.square().sum()) for each in wanted.values()))


def compare(models: Path, seed: int) -> None:
    rng = random.Random(seed)
    name, temperature, settings = rng.choice(ARCHITECTURES), rng.choice([1.0, 0.7]), draw_settings(rng)
    plain_settings = {"loss": {"name": "grpo"}, "kl": {"beta": 0.0}}
    groups, plain = draw_groups(rng, make(models, name, plain_settings, temperature))
    wanted = whole_update.update(
        models / name,
        models / f"{name}_reference",
        plain,
        settings | {"optimizer": {"learning_rate": RATE}},
        temperature=temperature,
        max_tokens=MAX_TOKENS,
    )
    split = {
        "tokens_per_microbatch": rng.choice([9, 30, 60]),
        "share_prompts": rng.random() < 0.5,
        "skip_neutral_groups": rng.random() < 0.5,
    }
    for compute in ({}, split):
        found = gradients_of(make(models, name, settings, temperature, **compute), groups)
        # A step without a gradient is none: Adam's moments of the steps before would move the weights by themselves.
        assert len(found) == len(wanted), f"{settings}, {compute}"
        for step, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
            # After a step the weights differ by Adam's sign of gradients that are nearly 0.
            assert distance(mine, theirs) < (1e-4 if step == 0 else 1e-2), f"step {step}, {settings}, {compute}"


@pytest.mark.parametrize("seed", range(24))
def test_gradients_are_those_of_the_papers(models: Path, seed: int) -> None:
    compare(models, seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(100, 500, 50))
def test_gradients_of_many_more_settings(models: Path, first: int) -> None:
    for seed in range(first, first + 50):
        compare(models, seed)
