"""Supervised steps: the loss of transformers, only on completions, and what a broken batch may not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.update.learner import Learner
from rayzero.learner.update.sft import SftTrainer
from rayzero.services.schema.config.learner import ComputeSettings
from rayzero.services.schema.config.training import SupervisedOptimizerSettings
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.interfaces import SftExample
from tests.unit.learner.kit import make_learner, some_groups, weights


def examples(count: int = 5) -> list[SftExample]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 61, rng.integers(1, 8)).astype(np.int32), rng.integers(0, 61, n).astype(np.int32))
        for n in rng.integers(1, 9, count)
    ]


def trainer(learner: Learner, rate: float = 1e-3, num_updates: int = 1, **settings: Any) -> SftTrainer:
    layout = {key: settings.pop(key) for key in ("tokens_per_microbatch", "share_prompts") if key in settings}
    compute = ComputeSettings(**layout)
    optimizer = SupervisedOptimizerSettings(learning_rate=rate, **{"decay": "constant", **settings})
    return SftTrainer(learner.policy, learner.optimizer, compute, settings=optimizer, num_updates=num_updates)


def test_loss_is_that_of_transformers(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total, count = 0.0, 0
    for prompt, completion in examples():
        tokens = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))[None]
        labels = tokens.clone()
        labels[0, : len(prompt)] = -100
        total += model(tokens, labels=labels).loss.item() * len(completion)
        count += len(completion)
    figures = trainer(make_learner(tiny_model)).step(examples(), 0)
    assert figures["loss"] == pytest.approx(total / count, rel=1e-5)
    assert figures["tokens"] == count


def test_the_split_never_changes_the_step(tiny_model: Path) -> None:
    ends = []
    for budget in (10_000, 12):
        learner = make_learner(tiny_model)
        trainer(learner, tokens_per_microbatch=budget).step(examples(), 0)
        ends.append(weights(learner))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-6)


def test_prompts_are_shared_where_the_recipe_says_so(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = np.arange(6, dtype=np.int32)
    twins: list[SftExample] = [(prompt, np.array([token], dtype=np.int32)) for token in (7, 8)]
    lengths = []
    for shared in (True, False):
        learner = make_learner(tiny_model)
        scored = learner.policy.logprobs

        def counted(microbatch: Microbatch, temperature: float | None = None, scored: Any = scored) -> Any:
            lengths.append(len(microbatch.token_ids))
            return scored(microbatch, temperature)

        monkeypatch.setattr(learner.policy, "logprobs", counted)
        trainer(learner, share_prompts=shared).step(twins, 0)
    assert lengths[0] < lengths[1]


def test_it_learns(tiny_model: Path) -> None:
    steps = trainer(make_learner(tiny_model), 1e-2, 15)
    losses = [steps.step(examples(), update)["loss"] for update in range(15)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_nan_is_not_applied(tiny_model: Path) -> None:
    learner = make_learner(tiny_model)
    with torch.no_grad():
        dict(learner.policy.named_parameters())["model.norm.weight"][0] = float("nan")
    before = weights(learner)
    with pytest.raises(RunHalted, match="not applied: its loss is nan"):
        trainer(learner).step(examples(), 0)
    assert torch.equal(weights(learner).nan_to_num(), before.nan_to_num())


def test_an_empty_prompt_is_named(tiny_model: Path) -> None:
    empty, some = np.zeros(0, dtype=np.int32), np.zeros(2, dtype=np.int32)
    with pytest.raises(ValueError, match="example 1: an empty prompt"):
        trainer(make_learner(tiny_model)).step([(some, some), (empty, some)], 0)


def test_the_loss_is_cross_entropy_whatever_the_engines_sample_at(tiny_model: Path) -> None:
    plain, cool = (trainer(make_learner(tiny_model, temperature=each)) for each in (1.0, 0.6))
    for _ in range(2):  # the second step's loss shows what the first one's gradient was
        assert cool.step(examples(), 0) == plain.step(examples(), 0)


@pytest.mark.parametrize(
    ("keys", "rates"),
    [
        ({}, [0.5, 1.0, 1.0, 0.7, 0.4, 0.1]),
        ({"decay": "linear", "floor": 0.4}, [0.5, 1.0, 1.0, 0.8, 0.6, 0.4]),
        ({"decay": "cosine", "floor": 0.0}, [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]),
        ({"decay": "constant"}, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_is_that_of_its_own_keys(tiny_model: Path, keys: dict[str, Any], rates: list[float]) -> None:
    settings = SupervisedOptimizerSettings(learning_rate=1e-3, warmup_updates=2, **keys)
    learner = make_learner(tiny_model, optimizer={"learning_rate": 1.0})
    steps = SftTrainer(learner.policy, learner.optimizer, ComputeSettings(), settings=settings, num_updates=6)
    used = [steps.step(examples(), update)["learning_rate"] for update in range(6)]
    assert used == pytest.approx([1e-3 * rate for rate in rates], abs=1e-12)


@pytest.mark.parametrize("keys", [{"betas": (0.1, 0.1)}, {"eps": 1.0}, {"weight_decay": 0.9}, {"max_grad_norm": 1e-9}])
def test_every_key_of_its_optimizer_acts(tiny_model: Path, keys: dict[str, Any]) -> None:
    def after(keys: dict[str, Any]) -> torch.Tensor:
        learner = make_learner(tiny_model)
        supervised = trainer(learner, 1e-2, 3, **keys)
        for update in range(3):
            supervised.step(examples(), update)
        return weights(learner)

    assert (after({}) - after(keys)).abs().max() > 1e-3


def test_no_key_of_its_optimizer_stays_behind(tiny_model: Path) -> None:
    ends = []
    for supervised in (False, True):
        learner = make_learner(tiny_model)
        if supervised:
            keys: dict[str, Any] = {"betas": (0.1, 0.1), "eps": 1.0, "weight_decay": 0.9, "max_grad_norm": 1e-9}
            trainer(learner, 1e-30, **keys).step(examples(), 0)  # moments, and no weight that moves
            learner.restart()
        learner.update(some_groups(), 1)
        ends.append(weights(learner))
    assert torch.equal(*ends)
