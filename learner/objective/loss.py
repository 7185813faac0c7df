"""The whole objective of one micro-batch: the named loss, corrected, plus KL and entropy. This is what is trained.

sum_t weight_t * ( correction_t * value_t + beta * kl_t - entropy_coefficient * entropy_t )
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rayzero.learner.objective.correction import correction_weights
from rayzero.learner.objective.kl import KL_ESTIMATORS
from rayzero.learner.objective.losses.base import BatchShape, Tokens
from rayzero.learner.objective.rejection import Drift, passing
from rayzero.services.schema.config.learner import LearnerSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class LossInputs:
    """n completion tokens of s whole completions."""

    policy_logprobs: Tensor
    """[n] log pi_theta, differentiable."""
    entropies: Tensor
    """[n] differentiable."""
    old_logprobs: Tensor
    """[n] log pi_old: the learner at the start of the batch."""
    rollout_logprobs: Tensor
    """[n] log pi_rollout: the engine that sampled."""
    reference_logprobs: Tensor | None
    """[n] log pi_ref, or none when beta is 0."""
    samples: Tensor
    """[n] int64 in [0, s)"""
    advantages: Tensor
    """[s] fp32"""
    token_weights: Tensor
    """[s] fp32: weight of each token of a completion, denominators included (learner/objective/losses/base.py)."""
    turn_advantages: Tensor | None = None
    """[n] fp32, where turns are credited by themselves."""
    batch: BatchShape | None = None
    """Of all completions of the step, for losses that ask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutputs:
    """The scalar to differentiate, and what the metrics need, detached."""

    loss: Tensor
    clipped: Tensor
    """[n] bool"""
    correction: Tensor
    """[n]"""
    kl: Tensor | None
    """[n] estimates of KL(policy || reference)."""


def microbatch_loss(inputs: LossInputs, settings: LearnerSettings) -> LossOutputs:
    """The objective of one micro-batch; summed over a batch's micro-batches it is the batch's objective."""
    policy, old = inputs.policy_logprobs, inputs.old_logprobs
    bypass = settings.correction.name == "rollout_as_old"
    if bypass:
        # A log-probability that is unknown says nothing of the ratio; the token's weight is 0.
        rollout = inputs.rollout_logprobs
        old = rollout.where(~rollout.isnan(), policy.detach())
    tokens = Tokens(
        policy_logprobs=policy,
        old_logprobs=old,
        advantages=inputs.advantages,
        samples=inputs.samples,
        turn_advantages=inputs.turn_advantages,
        batch=inputs.batch,
    )
    terms = settings.loss.token_losses(tokens)
    # KL and entropy come after the correction: a token that it masks must not lose the pull to the reference as well.
    correction = _correction(inputs, settings)
    per_token = correction * terms.values
    kl = None
    if inputs.reference_logprobs is not None:
        kl = KL_ESTIMATORS[settings.kl.estimator_name](policy, inputs.reference_logprobs)
        if settings.kl.unbiased:
            # Nothing truncates this ratio: a sampler's -inf would multiply one token's pull by 5e8.
            kl = (policy - old).clamp(-20.0, 20.0).exp().where(old.isfinite(), 1.0) * kl
        if settings.kl.place == "loss":
            per_token = per_token + settings.kl.beta * kl
    if settings.entropy_coefficient:
        per_token = per_token - settings.entropy_coefficient * inputs.entropies
    loss = torch.dot(inputs.token_weights[inputs.samples], per_token)
    return LossOutputs(loss=loss, clipped=terms.clipped, correction=correction, kl=None if kl is None else kl.detach())


def _correction(inputs: LossInputs, settings: LearnerSettings) -> Tensor:
    """[n] the weight of each token by `correction`, 0 where a rule of `rejection` leaves it out."""
    rollout, count = inputs.rollout_logprobs, len(inputs.advantages)
    weights = correction_weights(inputs.old_logprobs, rollout, inputs.samples, count, settings.correction)
    if not settings.rejection:
        return weights
    unknown = rollout.isnan()
    drift = Drift(
        log_ratios=(inputs.old_logprobs - rollout).masked_fill(unknown, 0.0),
        moved=(rollout - inputs.policy_logprobs.detach()).masked_fill(unknown, 0.0),
        samples=inputs.samples,
        advantages=inputs.advantages,
    )
    return weights * passing(drift, settings.rejection)
