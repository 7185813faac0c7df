"""Supervised steps: the loss of transformers, only on completions, and what a broken batch may not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rayzero.learner.update.learner import Learner
from rayzero.learner.update.sft import SftExample, SftTrainer
from rayzero.services.schema.config.learner import ComputeSettings
from rayzero.services.schema.errors import RunHalted
from tests.unit.learner.update.test_learner import make_learner, weights


def examples(count: int = 5) -> list[SftExample]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 61, rng.integers(1, 8)).astype(np.int32), rng.integers(0, 61, n).astype(np.int32))
        for n in rng.integers(1, 9, count)
    ]


def trainer(learner: Learner, **compute: int) -> SftTrainer:
    return SftTrainer(learner.policy, learner.optimizer, ComputeSettings(**compute))


def test_loss_is_that_of_transformers(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total, count = 0.0, 0
    for prompt, completion in examples():
        tokens = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))[None]
        labels = tokens.clone()
        labels[0, : len(prompt)] = -100
        total += model(tokens, labels=labels).loss.item() * len(completion)
        count += len(completion)
    figures = trainer(make_learner(tiny_model)).step(examples(), 1e-3)
    assert figures["loss"] == pytest.approx(total / count, rel=1e-5)
    assert figures["tokens"] == count


def test_the_split_never_changes_the_step(tiny_model: Path) -> None:
    ends = []
    for budget in (10_000, 12):
        learner = make_learner(tiny_model)
        trainer(learner, tokens_per_microbatch=budget).step(examples(), 1e-3)
        ends.append(weights(learner))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-6)


def test_it_learns(tiny_model: Path) -> None:
    steps = trainer(make_learner(tiny_model))
    losses = [steps.step(examples(), 1e-2)["loss"] for _ in range(15)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_nan_is_not_applied(tiny_model: Path) -> None:
    learner = make_learner(tiny_model)
    with torch.no_grad():
        dict(learner.policy.named_parameters())["model.norm.weight"][0] = float("nan")
    before = weights(learner)
    with pytest.raises(RunHalted, match="not applied: loss=nan"):
        trainer(learner).step(examples(), 1e-3)
    assert torch.equal(weights(learner).nan_to_num(), before.nan_to_num())


def test_an_empty_prompt_is_named(tiny_model: Path) -> None:
    empty, some = np.zeros(0, dtype=np.int32), np.zeros(2, dtype=np.int32)
    with pytest.raises(ValueError, match="example 1: an empty prompt"):
        trainer(make_learner(tiny_model)).step([(some, some), (empty, some)], 1e-3)
