"""KL estimates by hand, and over a whole distribution: the mean is the KL, the gradient of k2 its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from rayzero.learner.objective.kl import KL_ESTIMATORS
from rayzero.services.schema.config.learner import LearnerSettings

POLICY, REFERENCE = [0.5, 0.3, 0.2], [0.25, 0.25, 0.5]
KL = sum(p * math.log(p / q) for p, q in zip(POLICY, REFERENCE, strict=True))


def logs(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("name", "value"), [("k1", math.log(2)), ("k2", math.log(2) ** 2 / 2), ("k3", math.log(2) - 0.5)]
)
def test_of_one_token_by_hand(name: str, value: float) -> None:
    assert KL_ESTIMATORS[name](logs([0.5]), logs([0.25])).item() == pytest.approx(value)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_the_mean_over_what_the_policy_samples_is_the_kl(name: str) -> None:
    estimates = KL_ESTIMATORS[name](logs(POLICY), logs(REFERENCE))
    assert (torch.tensor(POLICY, dtype=torch.float64) * estimates).sum().item() == pytest.approx(KL)


def test_each_place_has_the_estimator_that_is_right_there() -> None:
    """The gradient of a reward goes through the score alone: E[grad log pi * estimate] is the KL's with k1, not k3."""
    of = LearnerSettings.model_validate
    assert of({"kl": {"beta": 0.1}}).kl.estimator_name == "k3"
    assert of({"kl": {"beta": 0.1, "place": "reward"}}).kl.estimator_name == "k1"
    assert of({"kl": {"beta": 0.1, "place": "reward", "estimator": "k2"}}).kl.estimator_name == "k2"
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    policy, reference = logits.log_softmax(0), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    (wanted,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    found = {
        name: torch.autograd.grad(
            (policy.detach().exp() * estimate(policy, reference).detach() * policy).sum(), logits, retain_graph=True
        )[0]
        for name, estimate in KL_ESTIMATORS.items()
    }
    assert torch.allclose(found["k1"], wanted)
    assert not torch.allclose(found["k3"], wanted, rtol=0.1)


def test_k3_is_never_negative_and_finite_for_a_broken_token() -> None:
    estimates = KL_ESTIMATORS["k3"](torch.tensor([-1.0, -1e4, 0.0]), torch.tensor([-1e4, -1.0, 0.0]))
    assert (estimates >= 0).all() and torch.isfinite(estimates).all()


def test_the_gradient_of_k2_is_that_of_the_kl() -> None:
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    policy = logits.log_softmax(0)
    exact = torch.autograd.grad((policy.exp() * (policy - logs(REFERENCE))).sum(), logits, retain_graph=True)[0]
    sampled = torch.autograd.grad((policy.exp().detach() * KL_ESTIMATORS["k2"](policy, logs(REFERENCE))).sum(), logits)[
        0
    ]
    assert sampled.tolist() == pytest.approx(exact.tolist())
