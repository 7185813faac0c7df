"""Our objective against TRL's own `_compute_loss`, on the same tensors, conventions set explicitly.

TRL divides advantages by the sample std plus 1e-4; both get the same advantages here, ours computed by the population
std. TRL's mean is over rows, which is ours when all groups have the same size.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rayzero.services.schema.config.learner import LearnerSettings
from tests.reference import objectives
from tests.unit.learner.objective.test_losses import random_batch, trained_loss

_MISSING = importlib.util.find_spec("trl") is None and os.environ.get("RAYZERO_CI") != "1"
pytestmark = pytest.mark.skipif(_MISSING, reason="trl is not installed (make setup-dev)")


class Recorder:
    """Stands where TRL's accelerator stands: one process."""

    num_processes = 1

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    gather_for_metrics = gather

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor


def trl_loss(batch: objectives.Batch, advantages: list[list[float]], **changes: Any) -> tuple[float, list[float]]:
    """TRL's loss of a padded batch, and its gradient in every real token's log-probability."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.grpo_trainer import GRPOTrainer
    rows = [c for group in batch for c in group]
    width = max(max(len(c["policy"]) for c in rows), 1)

    def padded(name: str) -> Tensor:
        return torch.tensor([c[name] + [-1.0] * (width - len(c[name])) for c in rows], dtype=torch.float64)

    mask = torch.tensor([[1.0] * len(c["policy"]) + [0.0] * (width - len(c["policy"])) for c in rows])
    policy = padded("policy").requires_grad_()
    trainer = SimpleNamespace(
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=0.0, loss_type="grpo", epsilon_low=0.2, epsilon_high=0.2,
        use_vllm=True, vllm_importance_sampling_correction=True, current_gradient_accumulation_steps=1,
        max_completion_length=16, _entropy_bonus_enabled=False, accelerator=Recorder(),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        model=SimpleNamespace(training=True), _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (policy, torch.zeros_like(policy), None),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(trainer, name, value)
    ones = torch.ones(len(rows), 1, dtype=torch.int64)
    inputs = {
        "prompt_ids": ones, "prompt_mask": ones, "completion_ids": mask.long(), "completion_mask": mask.long(),
        "advantages": torch.tensor([a for group in advantages for a in group], dtype=torch.float64),
        "old_per_token_logps": padded("old"), "ref_per_token_logps": padded("reference"),
        "importance_sampling_ratio": torch.exp(padded("old") - padded("rollout")).clamp(max=1.1),
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    assert policy.grad is not None
    return loss.item(), policy.grad[mask.bool()].tolist()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"loss": {"name": "grpo"}}, {}),
        ({"loss": {"name": "grpo"}, "kl": {"beta": 0.04}}, {"beta": 0.04}),
        (
            {"loss": {"name": "gspo", "clip_low": 3e-2, "clip_high": 4e-2}},
            {"importance_sampling_level": "sequence", "epsilon_low": 3e-2, "epsilon_high": 4e-2},
        ),
        ({"loss": {"name": "dr_grpo", "constant_tokens": 16}}, {"loss_type": "dr_grpo"}),
        ({"loss": {"name": "dapo", "clip_high": 0.28}}, {"loss_type": "dapo", "epsilon_high": 0.28}),
        # TRL's epsilon_high is the cap itself, ours is what lies above 1.
        ({"loss": {"name": "cispo", "clip_high": 0.1}}, {"loss_type": "cispo", "epsilon_high": 1.1}),
    ],
    ids=["grpo", "grpo_kl", "gspo", "dr_grpo", "dapo", "cispo"],
)
def test_loss_and_gradient_are_those_of_trl(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    correction = {"correction": {"name": "token_truncation", "limit": 1.1}}
    settings = LearnerSettings.model_validate(ours | correction)
    for seed in range(3):
        batch = random_batch(seed, sizes=(4, 4))
        for completion in (c for group in batch for c in group):
            if not completion["policy"]:
                # TRL clamps an empty row's count to 1 and its metrics divide by 0: not ours to imitate.
                completion |= {name: [-1.0] for name in ("policy", "old", "rollout", "reference", "entropy")}
        rewards = [[c["reward"] for c in group] for group in batch]
        advantages = objectives.batch_advantages(rewards, settings.advantage_name)
        value, gradient = trl_loss(batch, advantages, **theirs)
        outputs, policy = trained_loss(batch, advantages, settings)
        outputs.loss.backward()
        assert policy.grad is not None
        # TRL's mask is fp32, which rounds its sums.
        assert outputs.loss.item() == pytest.approx(value, rel=1e-6, abs=1e-9)
        assert policy.grad.tolist() == pytest.approx(gradient, rel=1e-6, abs=1e-9)


def test_the_std_convention_is_the_only_difference_in_advantages() -> None:
    """TRL: sample std + 1e-4. Ours times sqrt((G - 1) / G), up to that 1e-4, is theirs."""
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.5])
    theirs = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    ours = np.array(objectives.group_advantages(rewards.tolist(), "std_normalised"))
    assert (ours * math.sqrt(3 / 4)).tolist() == pytest.approx(theirs.tolist(), rel=1e-3)
