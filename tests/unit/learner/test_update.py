"""Runs of several updates, drawn at random: every gradient and what the weights come to, against float64.

What an update is made of is drawn in test_objective.py; here is what lies between updates and around them: moments,
decay of weights, the norm's limit, the rate's way, a reference that follows, adapters, episodes, precisions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from rayzero.learner.model.policy import Policy
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.messages import Completion, FinishReason, Group, Rollout
from tests.reference.whole_update import Groups, Sampled, Training
from tests.unit.learner.episodes import episode_group, sampled_rows
from tests.unit.learner.kit import LENIENT, build_model, make_group
from tests.unit.learner.test_objective import MAX_TOKENS, distance, draw_groups, draw_settings, gradients_of

ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3_moe")
UPDATES = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    for name in ARCHITECTURES:
        build_model(root / name, name)
    return root


def draw_run(rng: random.Random) -> dict[str, Any]:
    """Any objective, and all that a run of several updates has besides."""
    settings = draw_settings(rng)
    if settings["loss"]["name"] == "dr_grpo" and settings["aggregation"] is None:
        settings["loss"]["constant_tokens"] = rng.choice([3, 40])
    if settings["kl"].get("place") != "reward" and settings["kl"]["beta"]:
        settings["kl"] |= {"refresh_every_updates": rng.choice([0, 1, 2])}
    optimizer = {
        "learning_rate": rng.choice([3e-3, 1e-2]),
        "betas": rng.choice([(0.9, 0.999), (0.5, 0.8), (0.0, 0.95)]),
        # Where nearly all gradients are under it, a step is no longer their signs, and rounding is not blown up.
        "eps": rng.choice([1e-3, 1e-2]),
        "weight_decay": rng.choice([0.0, 0.1, 3.0]),
        "max_grad_norm": rng.choice([1.0, 0.05, 100.0]),
        "warmup_updates": rng.choice([0, 1, 2]),
        "decay": rng.choice(["constant", "linear", "cosine"]),
        "floor": rng.choice([0.0, 0.3]),
    }
    return settings | {"optimizer": optimizer}


def draw_compute(rng: random.Random) -> dict[str, Any]:
    return {
        "tokens_per_microbatch": rng.choice([9, 30, 60, 8192]),
        "share_prompts": rng.random() < 0.5,
        "skip_neutral_groups": rng.random() < 0.5,
        "activation_checkpointing": rng.random() < 0.3,
        "head_chunk_tokens": rng.choice([0, 1, 7]),
    }


def start(model: Path, settings: Mapping[str, Any], temperature: float, dtype: str = "float32", **more: Any) -> Learner:
    content = {key: value for key, value in settings.items() if value is not None}
    read = LearnerSettings.model_validate(content | more | {"watch": LENIENT})
    policy = Policy(model, dtype=dtype, temperature=temperature, compute=read.compute, lora=read.lora)
    return Learner(policy, read, num_updates=UPDATES, max_completion_tokens=MAX_TOKENS)


def the_same(model: Path, settings: Mapping[str, Any], temperature: float, learner: Learner) -> Training:
    factors = {
        name.replace(".default.weight", ""): each
        for name, each in learner.policy.named_parameters()
        if ".lora_" in name
    }
    return Training(
        model, None, settings, temperature=temperature, max_tokens=MAX_TOKENS, num_updates=UPDATES, factors=factors
    )


def plain(name: str) -> str:
    return name.replace(".default.weight", "")


def compare_runs(model: Path, settings: dict[str, Any], rng: random.Random, **more: Any) -> None:
    temperature, compute = rng.choice([1.0, 0.7]), draw_compute(rng)
    learner = start(model, settings, temperature, compute=compute, **more)
    wanted = the_same(model, settings | more, temperature, learner)
    before = {name: each.detach().clone() for name, each in wanted.weights().items()}
    stepped = learner.optimizer.step
    for update in range(UPDATES):
        learner.optimizer.step = stepped  # type: ignore[method-assign]
        groups, same = draw_groups(rng, learner)
        found, expected = gradients_of(learner, groups), wanted.update(same)
        assert len(found) == len(expected), f"update {update}: {settings}, {compute}, {more}"
        for step, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            apart = distance({plain(name): each for name, each in mine.items()}, theirs)
            # After a step the weights differ by float32's rounding, and what a clip cuts off may be another token's.
            assert apart < (1e-4 if update == step == 0 else 1e-2), f"update {update}: {settings}, {compute}, {more}"
    close(learner, wanted, before, f"{settings}, {compute}, {more}")


def close(learner: Learner, wanted: Training, before: Mapping[str, Tensor], what: str) -> None:
    weights = {name: each.detach() for name, each in wanted.weights().items()}
    named = {name: each.double() for name, each in learner.policy.named_weights()}
    apart = math.sqrt(sum(float((named[n] - weights[n]).square().sum()) for n in named if n in weights))
    moved = math.sqrt(sum(float((before[n] - weights[n]).square().sum()) for n in named if n in weights))
    # Some of float32's own grain for weights that barely moved.
    assert apart <= 1e-3 * moved + 1e-5, f"{apart} of {moved}: {what}"


@pytest.mark.parametrize("seed", range(8))
def test_a_run_is_that_of_the_papers(models: Path, seed: int) -> None:
    rng = random.Random(seed)
    compare_runs(models / ARCHITECTURES[seed % len(ARCHITECTURES)], draw_run(rng), rng)


@pytest.mark.parametrize("seed", range(3))
def test_adapters_are_trained_as_the_weights_would_be(models: Path, seed: int) -> None:
    rng = random.Random(1000 + seed)
    lora = {"rank": rng.choice([1, 3]), "alpha": rng.choice([2.0, 8.0])}
    compare_runs(models / ARCHITECTURES[seed], draw_run(rng), rng, lora=lora)


@pytest.mark.long
@pytest.mark.parametrize("first", range(100, 300, 50))
def test_many_more_runs(models: Path, first: int) -> None:
    for seed in range(first, first + 50):
        rng = random.Random(seed)
        more = {} if rng.random() < 0.7 else {"lora": {"rank": rng.choice([1, 3, 8]), "alpha": 4.0}}
        name = rng.choice(ARCHITECTURES[:3] if more else ARCHITECTURES)
        compare_runs(models / name, draw_run(rng), rng, **more)


def draw_episodes(rng: random.Random, learner: Learner) -> tuple[list[Group], Groups]:
    """Trees and completions, by an engine that is near; some cut off, some without a verdict."""
    noise = np.random.default_rng(rng.randrange(2**31))
    made, same = [], []
    for index in range(rng.choice([1, 2, 3])):
        rewards = [rng.choice([0.0, 1.0, 0.3, math.nan]) for _ in range(rng.choice([2, 3]))]
        group = episode_group(noise, rewards, group_id=index, prompt_length=rng.choice([1, 4]), max_branches=3)
        group = replace(group, rollouts=tuple(_near(rng, noise, learner, group, each) for each in group.rollouts))
        made.append(group)
        same.append([_sampled(group, each) for each in group.rollouts])
    return made, same


def _near(rng: random.Random, noise: np.random.Generator, learner: Learner, group: Group, rollout: Rollout) -> Rollout:
    def scored(path: Completion, before: Sequence[int]) -> Completion:
        scores = learner.score(np.asarray(before, np.int32), path.token_ids) if path.num_tokens else np.zeros(0)
        near = (scores + 0.1 * noise.standard_normal(len(scores))).astype(np.float32)
        if path.is_sampled is not None:
            near[~path.is_sampled] = np.nan
        return replace(path, rollout_logprobs=near)

    whole = rollout.completion
    paths: list[Completion] = []
    befores: list[list[int]] = []
    for number, path in enumerate(whole.paths):
        if number == 0:
            before = group.prompt_token_ids.tolist()
        else:
            branch = whole.branches[number - 1]
            parent = [*befores[branch.parent], *paths[branch.parent].token_ids.tolist()]
            before = parent[: branch.fork]
        befores.append(before)
        paths.append(scored(path, before))
    branches = tuple(replace(b, completion=p) for b, p in zip(whole.branches, paths[1:], strict=True))
    main = replace(whole, rollout_logprobs=paths[0].rollout_logprobs, branches=branches)
    parts = None if rollout.verdict.is_error else {"answer": (1.0, rollout.verdict.reward)}
    reason: FinishReason = "length" if rng.random() < 0.3 else "stop"
    return replace(
        rollout, completion=replace(main, finish_reason=reason), verdict=replace(rollout.verdict, parts=parts)
    )


def _sampled(group: Group, rollout: Rollout) -> Sampled:
    judged = replace(rollout, verdict=replace(rollout.verdict, reward=0.0))
    rows = sampled_rows([replace(group, rollouts=(rollout if not rollout.verdict.is_error else judged,))])
    completion = rollout.completion
    logprobs = [
        float(x)
        for path in completion.paths
        for x in path.rollout_logprobs[... if path.is_sampled is None else path.is_sampled]
    ]
    return Sampled(
        rows=[(tokens.tolist(), places.tolist()) for tokens, places in rows],
        rollout=logprobs,
        reward=rollout.verdict.reward,
        parts=rollout.verdict.parts or {},
        truncated=completion.finish_reason == "length",
    )


@pytest.mark.parametrize("seed", range(6))
def test_episodes_are_trained_path_by_path(models: Path, seed: int) -> None:
    compare_episodes(models, seed)


@pytest.mark.long
def test_many_more_episodes(models: Path) -> None:
    for seed in range(100, 180):
        compare_episodes(models, seed)


def compare_episodes(models: Path, seed: int) -> None:
    rng = random.Random(2000 + seed)
    model, settings, compute = models / rng.choice(ARCHITECTURES[:3]), draw_run(rng), draw_compute(rng)
    temperature = rng.choice([1.0, 0.7])
    learner = start(model, settings, temperature, compute=compute)
    wanted = the_same(model, settings, temperature, learner)
    groups, same = draw_episodes(rng, learner)
    found, expected = gradients_of(learner, groups), wanted.update(same)
    assert len(found) == len(expected), f"{settings}, {compute}"
    for step, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert distance(mine, theirs) < (1e-4 if step == 0 else 1e-2), f"{settings}, {compute}"


@pytest.mark.parametrize(("dtype", "apart"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_a_half_precision_rounds_and_nothing_else(models: Path, dtype: str, apart: float) -> None:
    """The gradient of the default objective."""
    for seed, name in enumerate(("llama", "qwen2", "qwen3")):
        settings = {
            "loss": {"name": "grpo", "clip_low": 0.2, "clip_high": 0.2},
            "kl": {"beta": 0.0},
            "correction": {"name": "none"},
            "optimizer": {"learning_rate": 1e-3},
        }
        learner, noise = start(models / name, settings, 1.0, dtype), np.random.default_rng(seed)
        groups = [make_group(noise, [9, 4, 16, 1], [1.0, 0.0, 0.3, 0.0], group_id=index) for index in range(2)]
        same = [[_sampled(group, rollout) for rollout in group.rollouts] for group in groups]
        wanted = Training(models / name, None, settings, temperature=1.0, max_tokens=MAX_TOKENS)
        found, expected = gradients_of(learner, groups), wanted.update(same)
        assert distance(found[0], expected[0]) < apart
