"""The objective that is trained: hand-computed numbers, the loop reference for every loss, and the edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rayzero.learner.objective.loss import LossInputs, LossOutputs, microbatch_loss
from rayzero.learner.objective.losses.base import BatchShape
from rayzero.learner.objective.losses.dapo import DapoLoss
from rayzero.services.schema.config.learner import LearnerSettings
from tests.reference import objectives

LOSS_SETTINGS: list[dict[str, Any]] = [
    {"name": "grpo", "ratio": "token", "clip_low": 0.2, "clip_high": 0.2},
    {"name": "grpo", "ratio": "sequence", "clip_low": 0.2, "clip_high": 0.2},
    {"name": "dr_grpo", "clip_low": 0.2, "clip_high": 0.3, "constant_tokens": 9},
    {"name": "dr_grpo", "clip_low": 0.2, "clip_high": 0.2},
    {"name": "dapo", "clip_low": 0.2, "clip_high": 0.28},
    {"name": "gspo", "clip_low": 0.05, "clip_high": 0.04},
    {"name": "cispo", "clip_low": 1.0, "clip_high": 0.3},
    {"name": "rloo", "clip_low": 0.2, "clip_high": 0.2},
    {"name": "reinforce++", "clip_low": 0.1, "clip_high": 0.2},
    {"name": "grpo", "ratio": "token", "clip_low": 0.2, "clip_high": 0.2, "dual_clip": 1.1},
    {"name": "gspo", "clip_low": 0.05, "clip_high": 0.04, "dual_clip": 1.01},
    {"name": "sapo", "tau_positive": 1.0, "tau_negative": 1.05},
    {"name": "sapo", "tau_positive": 3.0, "tau_negative": 9.0},
]
CORRECTIONS: list[dict[str, Any]] = [
    {"name": "token_truncation", "limit": 1.1},
    {"name": "sequence_truncation", "limit": 1.3},
    {"name": "icepop", "low": 0.8, "high": 1.25},
    {"name": "geometric_rejection", "low": 0.9, "high": 1.1},
    {"name": "rollout_as_old"},
    {"name": "none"},
]
REJECTIONS: list[list[dict[str, Any]]] = [
    [{"name": "token_mask", "low": 0.9, "high": 1.1}],
    [{"name": "token_veto", "low": 0.85}],
    [{"name": "sequence_mask", "high": 1.2}],
    [{"name": "sequence_mask", "low": 0.97, "high": 1.05, "mean": True}],
    [{"name": "off_policy_mask", "limit": 0.02}],
    [
        {"name": "sequence_mask", "high": 1.3},
        {"name": "token_veto", "low": 0.8},
        {"name": "off_policy_mask", "limit": 0.05},
    ],
]


def label(value: object) -> str:
    return "-".join(str(part) for part in value.values()) if isinstance(value, dict) else str(value)


def random_batch(seed: int, sizes: tuple[int, ...] = (3, 1, 4)) -> objectives.Batch:
    rng = np.random.default_rng(seed)

    def completion(length: int) -> objectives.Completion:
        old = -rng.exponential(1.0, length)
        return {
            "policy": (old + 0.15 * rng.standard_normal(length)).tolist(),
            "old": old.tolist(),
            "rollout": (old + 0.1 * rng.standard_normal(length)).tolist(),
            "reference": (old + 0.2 * rng.standard_normal(length)).tolist(),
            "entropy": rng.uniform(0, 2, length).tolist(),
            "reward": float(rng.choice([0.0, 1.0, 0.1])),
        }

    return [[completion(int(rng.integers(0, 7))) for _ in range(size)] for size in sizes]


def trained_loss(
    batch: objectives.Batch,
    advantages: list[list[float]],
    settings: LearnerSettings,
    policy: torch.Tensor | None = None,
) -> tuple[LossOutputs, torch.Tensor]:
    """The learner's own path, in float64: token_weights from the batch's shape, then one micro-batch of everything."""
    rows = [(g, c, a) for g, group in enumerate(batch) for c, a in zip(group, advantages[g], strict=True)]
    rows = [row for row in rows if not math.isnan(row[1]["reward"])]
    lengths = np.array([len(c["policy"]) for _, c, _ in rows])
    shape = BatchShape(groups=np.array([g for g, _, _ in rows]), lengths=lengths, max_completion_tokens=16)
    token_weights = settings.loss.token_weights(shape)

    def column(name: str) -> torch.Tensor:
        return torch.tensor([value for _, c, _ in rows for value in c[name]], dtype=torch.float64)

    policy = column("policy").requires_grad_() if policy is None else policy
    inputs = LossInputs(
        policy_logprobs=policy,
        entropies=column("entropy"),
        old_logprobs=column("old"),
        rollout_logprobs=column("rollout"),
        reference_logprobs=column("reference") if settings.kl.beta else None,
        samples=torch.repeat_interleave(torch.arange(len(rows)), torch.from_numpy(lengths)),
        advantages=torch.tensor([a for _, _, a in rows], dtype=torch.float64),
        token_weights=torch.from_numpy(token_weights),
    )
    return microbatch_loss(inputs, settings), policy


def reference_gradient(batch: objectives.Batch, advantages: list[list[float]], **kwargs: Any) -> list[float]:
    """Central differences of the loop objective in each policy log-probability."""
    gradient = []
    for group in batch:
        for completion in group:
            # CISPO's weight is detached: it must not move with the policy.
            before = completion["rollout" if kwargs["correction"]["name"] == "rollout_as_old" else "old"]
            completion["frozen_ratios"] = [math.exp(a - b) for a, b in zip(completion["policy"], before, strict=True)]
    for group in batch:
        for completion in group:
            for t in range(len(completion["policy"])):
                at = completion["policy"][t]
                sides = []
                for step in (1e-6, -1e-6):
                    completion["policy"][t] = at + step
                    sides.append(objectives.objective(batch, advantages, **kwargs))
                completion["policy"][t] = at
                gradient.append((sides[0] - sides[1]) / 2e-6)
    return gradient


@pytest.mark.parametrize("loss", LOSS_SETTINGS, ids=label)
@pytest.mark.parametrize("correction", CORRECTIONS, ids=label)
def test_value_and_gradient_agree_with_the_loops(loss: dict[str, Any], correction: dict[str, Any]) -> None:
    settings = LearnerSettings.model_validate({
        "loss": loss, "correction": correction, "kl": {"beta": 0.3}, "entropy_coefficient": 0.01,
    })  # fmt: skip
    for seed in range(4):
        batch = random_batch(seed)
        rewards = [[c["reward"] for c in group] for group in batch]
        advantages = objectives.batch_advantages(rewards, settings.advantage_name)
        outputs, policy = trained_loss(batch, advantages, settings)
        arguments: dict[str, Any] = {"loss": loss, "correction": correction, "beta": 0.3, "entropy_coefficient": 0.01}
        assert outputs.loss.item() == pytest.approx(objectives.objective(batch, advantages, **arguments), rel=1e-9)
        outputs.loss.backward()
        assert policy.grad is not None
        expected = reference_gradient(batch, advantages, **arguments)
        assert policy.grad.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda rules: "+".join(label(rule) for rule in rules))
@pytest.mark.parametrize("correction", [CORRECTIONS[0], {"name": "rollout_as_old"}], ids=label)
def test_what_is_rejected_gives_no_gradient_whatever_else_corrects(
    rejection: list[dict[str, Any]], correction: dict[str, Any]
) -> None:
    settings = LearnerSettings.model_validate({"correction": correction, "rejection": rejection})
    rejected = 0
    for seed in range(6):
        batch = random_batch(seed)
        advantages = objectives.batch_advantages([[c["reward"] for c in group] for group in batch], "std_normalised")
        outputs, policy = trained_loss(batch, advantages, settings)
        arguments: dict[str, Any] = {"loss": LOSS_SETTINGS[0], "correction": correction, "rejection": rejection}
        assert outputs.loss.item() == pytest.approx(objectives.objective(batch, advantages, **arguments), rel=1e-9)
        outputs.loss.backward()
        assert policy.grad is not None
        assert policy.grad.tolist() == pytest.approx(reference_gradient(batch, advantages, **arguments), abs=1e-8)
        rejected += int((outputs.correction == 0).sum())
    assert rejected > 0


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_unbiased_kl_agrees_with_the_loops(estimator: str) -> None:
    kl = {"beta": 0.5, "estimator": estimator, "unbiased": True}
    for correction in (CORRECTIONS[0], {"name": "rollout_as_old"}):
        settings = LearnerSettings.model_validate({"kl": kl, "correction": correction})
        batch = random_batch(7)
        zeros = [[0.0] * len(group) for group in batch]
        outputs, policy = trained_loss(batch, zeros, settings)
        arguments: dict[str, Any] = {
            "loss": LOSS_SETTINGS[0], "correction": correction, "beta": 0.5, "estimator": estimator, "unbiased": True,
        }  # fmt: skip
        assert outputs.loss.item() == pytest.approx(objectives.objective(batch, zeros, **arguments), rel=1e-9)
        outputs.loss.backward()
        assert policy.grad is not None
        assert policy.grad.tolist() == pytest.approx(reference_gradient(batch, zeros, **arguments), abs=1e-8)


def test_the_unbiased_kl_has_the_gradient_of_the_kl() -> None:
    """Over a whole distribution, drawn from another one: k3 alone has not."""
    logits = torch.tensor([0.3, -0.2, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()

    def gradient(unbiased: bool) -> list[float]:
        policy = logits.log_softmax(0)
        inputs = LossInputs(
            policy_logprobs=policy, entropies=torch.zeros(4), old_logprobs=old.log(), rollout_logprobs=old.log(),
            reference_logprobs=reference, samples=torch.arange(4), advantages=torch.zeros(4, dtype=torch.float64),
            token_weights=old,
        )  # fmt: skip
        settings = LearnerSettings.model_validate({"kl": {"beta": 1.0, "unbiased": unbiased}})
        return torch.autograd.grad(microbatch_loss(inputs, settings).loss, logits)[0].tolist()

    policy = logits.log_softmax(0)
    exact = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)[0].tolist()
    assert gradient(True) == pytest.approx(exact)
    assert gradient(False) != pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_kl_estimators_agree_with_the_loops(estimator: str) -> None:
    settings = LearnerSettings.model_validate({"kl": {"beta": 0.5, "estimator": estimator}})
    batch, loss, correction = random_batch(7), LOSS_SETTINGS[0], {"name": "token_truncation", "limit": 2.0}
    zeros = [[0.0] * len(group) for group in batch]
    outputs, _ = trained_loss(batch, zeros, settings)
    expected = objectives.objective(batch, zeros, loss, correction, beta=0.5, estimator=estimator)
    assert outputs.loss.item() == pytest.approx(expected, rel=1e-9)


def two_completions(policy: list[list[float]], old: list[list[float]]) -> objectives.Batch:
    return [[
        {"policy": p, "old": o, "rollout": o, "reference": [math.log(0.25)] * len(p),
         "entropy": [0.0] * len(p), "reward": r}
        for p, o, r in zip(policy, old, (1.0, 0.0), strict=True)
    ]]  # fmt: skip


HALF, ONE = math.log(0.5), math.log(0.75)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Ratios 1.5 and 1 for the good completion (A = 1), 1 for the bad one (A = -1), clip at 1.2:
        # -( (1.2 + 1) / 2 - 1 ) / 2
        ({"name": "grpo"}, -0.05),
        # Product 1.5 clipped to 1.2: -(1.2 - 1) / 2
        ({"name": "grpo", "ratio": "sequence"}, -0.1),
        # Sums over 10: -( 2.2 / 10 - 1 / 10 ) / 2
        ({"name": "dr_grpo", "constant_tokens": 10}, -0.06),
        # Three tokens, clip at 1.28: -(1.28 + 1 - 1) / 3
        ({"name": "dapo"}, -1.28 / 3),
        # sqrt(1.5) = 1.2247 clipped to 1.0004: -(1.0004 - 1) / 2
        ({"name": "gspo"}, -0.0002),
        # Dual clip 3 at a ratio of 1.5 and A = -1 does nothing; see below for where it does.
        ({"name": "grpo", "dual_clip": 3.0}, -0.05),
        # Gates 4 sigma(.5) = 2.4898373, 4 sigma(0) = 2, and for A = -1 4 / 1.05 sigma(0) = 1.9047619:
        # -( (2.4898373 + 2) / 2 - 1.9047619 ) / 2
        ({"name": "sapo"}, -0.1700784),
        # Weights 1.5, 1, 1 times log-probabilities ln .75, ln .5, ln .5: -(1.5 ln .75 + ln .5 - ln .5) / 3
        ({"name": "cispo"}, 0.14384104),
    ],
    ids=label,
)
def test_hand_computed(loss: dict[str, Any], expected: float) -> None:
    batch = two_completions([[ONE, HALF], [HALF]], [[HALF, HALF], [HALF]])
    settings = LearnerSettings.model_validate({"loss": loss})
    outputs, _ = trained_loss(batch, [[1.0, -1.0]], settings)
    assert outputs.loss.item() == pytest.approx(expected, abs=1e-7)


def test_a_dual_clip_bounds_what_a_negative_advantage_costs() -> None:
    # The bad completion's token is 8 times as likely as before: -8 without, -3 with the clip, and no gradient.
    batch = two_completions([[HALF], [HALF]], [[HALF], [HALF - math.log(8)]])
    for dual, expected in ((None, (8 - 1) / 2), (3.0, (3 - 1) / 2)):
        settings = LearnerSettings.model_validate({"loss": {"name": "grpo", "dual_clip": dual}})
        outputs, policy = trained_loss(batch, [[1.0, -1.0]], settings)
        outputs.loss.backward()
        assert outputs.loss.item() == pytest.approx(expected)
        assert policy.grad is not None and (policy.grad[1].item() == 0) is (dual is not None)
        assert outputs.clipped.tolist() == [False, dual is not None]


def test_kl_hand_computed() -> None:
    # pi = 1/2, pi_ref = 1/4: k3 = 1/2 - ln(1/2) - 1 = .19314718 a token; the mean over everything is the same.
    batch = two_completions([[HALF, HALF], [HALF]], [[HALF, HALF], [HALF]])
    outputs, _ = trained_loss(batch, [[0.0, 0.0]], LearnerSettings.model_validate({"kl": {"beta": 2.0}}))
    assert outputs.loss.item() == pytest.approx(2 * 0.19314718, abs=1e-7)


@pytest.mark.parametrize("loss", LOSS_SETTINGS, ids=label)
def test_first_step_is_the_policy_gradient(loss: dict[str, Any]) -> None:
    """At pi = pi_old the gradient is -A grad log pi, shared out, whatever the loss; nothing is clipped."""
    settings = LearnerSettings.model_validate({"loss": loss, "correction": {"name": "none"}})
    batch = two_completions([[HALF, HALF], [HALF]], [[HALF, HALF], [HALF]])
    outputs, policy = trained_loss(batch, [[1.0, -1.0]], settings)
    outputs.loss.backward()
    assert policy.grad is not None
    assert policy.grad[0].item() < 0 < policy.grad[2].item()
    if loss["name"] not in ("cispo",):
        assert not outputs.clipped.any()


def test_a_samplers_minus_infinity_is_bounded() -> None:
    for correction, weight in zip(CORRECTIONS, (1.1, 1.3, 0.0, 0.0, 1.0, 1.0), strict=True):
        settings = LearnerSettings.model_validate({"correction": correction})
        batch = two_completions([[HALF, HALF], [HALF]], [[HALF, HALF], [HALF]])
        batch[0][0]["rollout"] = [HALF, -math.inf]
        outputs, policy = trained_loss(batch, [[1.0, -1.0]], settings)
        outputs.loss.backward()
        assert outputs.correction[1].item() == pytest.approx(weight)
        assert policy.grad is not None and policy.grad.isfinite().all()


def test_a_samplers_minus_infinity_does_not_blow_the_unbiased_kl_up() -> None:
    batch = random_batch(3, sizes=(3,))
    long = max(batch[0], key=lambda completion: len(completion["policy"]))
    long["rollout"][0] = -math.inf
    settings = LearnerSettings.model_validate({
        "correction": {"name": "rollout_as_old"}, "kl": {"beta": 0.1, "unbiased": True},
    })  # fmt: skip
    outputs, policy = trained_loss(batch, [[0.0] * 3], settings)
    outputs.loss.backward()
    assert policy.grad is not None and policy.grad.isfinite().all()
    assert outputs.loss.abs() < 1 and policy.grad.abs().max() < 1


def test_a_nan_from_the_sampler_counts_nothing() -> None:
    for correction in CORRECTIONS:
        settings = LearnerSettings.model_validate({"correction": correction})
        batch = two_completions([[HALF, HALF], [HALF]], [[HALF, HALF], [HALF]])
        batch[0][0]["rollout"] = [HALF, math.nan]
        outputs, policy = trained_loss(batch, [[1.0, -1.0]], settings)
        outputs.loss.backward()
        assert outputs.correction[1].item() == 0
        assert policy.grad is not None and policy.grad.isfinite().all() and policy.grad[1] == 0


@pytest.mark.parametrize("loss", LOSS_SETTINGS, ids=label)
def test_a_broken_ratio_stays_finite(loss: dict[str, Any]) -> None:
    batch = two_completions([[-0.1, HALF], [-0.1]], [[-900.0, HALF], [-900.0]])
    settings = LearnerSettings.model_validate({"loss": loss, "kl": {"beta": 0.1}})
    outputs, policy = trained_loss(batch, [[1.0, -1.0]], settings)
    outputs.loss.backward()
    assert policy.grad is not None and policy.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSS_SETTINGS, ids=label)
def test_all_empty_completions_lose_nothing(loss: dict[str, Any]) -> None:
    settings = LearnerSettings.model_validate({"loss": loss})
    outputs, _ = trained_loss(two_completions([[], []], [[], []]), [[1.0, -1.0]], settings)
    assert outputs.loss.item() == 0


def test_the_loops_refuse_a_loss_that_they_do_not_know() -> None:
    batch = two_completions([[HALF], [HALF]], [[HALF], [HALF]])
    for settings in ({"name": "new"}, {"name": "new", "clip_low": 0.2, "clip_high": 0.2}):
        with pytest.raises(NotImplementedError, match="completion_values has no branch for new"):
            objectives.objective(batch, [[1.0, -1.0]], settings, {"name": "none"})


def test_the_loops_refuse_a_loss_without_a_denominator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "completion_values", lambda completion, advantage, loss: [advantage])
    batch = two_completions([[HALF], [HALF]], [[HALF], [HALF]])
    with pytest.raises(NotImplementedError, match="objective has no denominator for new"):
        objectives.objective(batch, [[1.0, -1.0]], {"name": "new"}, {"name": "none"})


def test_overlong_penalty_hand_computed() -> None:
    # max 100, last 20 tokens punished: 80 is free, 90 half, 100 full.
    penalties = DapoLoss(overlong_tokens=20).reward_shaping(np.array([10, 80, 90, 100]), 100)
    assert penalties.tolist() == pytest.approx([0.0, 0.0, -0.5, -1.0])
    assert DapoLoss().reward_shaping(np.array([100]), 100).tolist() == [0.0]
