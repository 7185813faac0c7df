"""What an update says of itself: means over what their names say, and nothing left out unsaid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayzero.learner.batch.batching import Microbatch
from rayzero.learner.batch.samples import make_batch
from rayzero.services.schema.errors import RunHalted
from rayzero.services.schema.messages import Group
from tests.unit.learner.kit import LENIENT, make_group, make_learner, some_groups, weights, with_rollout_logprobs


def uniform_groups() -> list[Group]:
    rng = np.random.default_rng(3)
    return [make_group(rng, [6, 9], [1, 1], group_id=0), make_group(rng, [3, 0, 5], [0, 0, 0], group_id=1)]


@pytest.mark.parametrize("skip", [True, False])
def test_equal_rewards_are_warned_of_and_whether_the_loss_was_computed(tiny_model: Path, skip: bool) -> None:
    learner = make_learner(tiny_model, compute={"skip_neutral_groups": skip})
    (warning,) = [each for each in learner.update(uniform_groups(), 1).warnings if "all rewards are equal" in each]
    assert warning.endswith("nothing was learnt from it, and the loss was not computed" if skip else "learnt from it")


def test_a_batch_of_equal_rewards_is_watched_too(tiny_model: Path) -> None:
    """Nothing is learned from it, but a sampler that computes something else shows in it as well as in any other."""
    watch = {"ess_warn": 0, "ess_stop": 0, "min_tokens": 1}
    with pytest.raises(RunHalted, match="kl_rollout_fresh is"):
        make_learner(tiny_model, watch=watch).update(uniform_groups(), 1)
    learner = make_learner(tiny_model, watch={})
    agreeing = [with_rollout_logprobs(group, learner.score) for group in uniform_groups()]
    figures = learner.update(agreeing, 1).metrics
    assert figures["kl_rollout_fresh"] < 1e-10 and figures["ess"] == pytest.approx(1.0)
    assert figures["fed_tokens"] == 0 and figures["fresh_tokens"] == figures["scored_tokens"] == 23


@pytest.mark.parametrize("sample_tokens", [512, 9, 0])
def test_entropy_is_of_all_tokens(tiny_model: Path, sample_tokens: int) -> None:
    """Of a mixed group every token counts once; the scored ones of uniform groups stand for all of these."""
    groups = [*some_groups()[:1], *(replace(group, group_id=group.group_id + 7) for group in uniform_groups())]
    learner = make_learner(tiny_model, watch=LENIENT | {"sample_tokens": sample_tokens})
    batch = make_batch(groups)
    with torch.no_grad():
        entropies = torch.zeros(batch.num_tokens)
        for microbatch in learner._pack(batch.samples):
            entropies[torch.from_numpy(microbatch.batch_tokens)] = learner.policy.logprobs(microbatch)[1]
    seen = {}
    logprobs = learner.policy.logprobs

    def noted(microbatch: Microbatch, temperature: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        if not torch.is_grad_enabled():
            seen["tokens"] = microbatch.batch_tokens
        return logprobs(microbatch, temperature)

    learner.policy.logprobs = noted  # type: ignore[method-assign]
    figures = learner.update(groups, 1).metrics
    scored = seen.get("tokens", np.zeros(0, dtype=np.int64))
    trained, neutral = 13, 23
    assert figures["scored_tokens"] == len(scored) and min(sample_tokens, neutral) <= len(scored)
    expected = float(entropies[:trained].double().sum())
    if len(scored):
        expected = (expected + neutral * float(entropies[scored].double().mean())) / (trained + neutral)
    else:
        expected /= trained
    assert figures["entropy"] == pytest.approx(expected, rel=1e-5)


def test_groups_without_a_gradient_are_watched_one_after_the_other(tiny_model: Path) -> None:
    """Of completions from all groups every prompt would have to be fed."""
    groups = [replace(uniform_groups()[0], group_id=number) for number in range(6)]
    size = sum(rollout.completion.num_tokens for rollout in groups[0].rollouts)
    learner = make_learner(tiny_model, watch=LENIENT | {"sample_tokens": 2 * size})
    watched = []
    pack = learner._pack
    learner._pack = lambda samples: watched.append(samples) or pack(samples)  # type: ignore[method-assign]
    figures = learner.update(groups, 1).metrics
    (chosen,) = [samples for samples in watched if samples]
    assert figures["scored_tokens"] == 2 * size
    assert len({sample.group for sample in chosen}) == 2


def test_a_batch_without_a_gradient_moves_no_weight(tiny_model: Path) -> None:
    """Adam's moments of the updates before would move them by themselves."""
    learner = make_learner(tiny_model, optimizer={"learning_rate": 1e-2, "weight_decay": 0.1})
    learner.update(some_groups(), 1)
    before = weights(learner)
    learner.update(uniform_groups(), 2)
    assert torch.equal(weights(learner), before)


def test_where_it_is_asked_for_such_a_batch_is_a_step_with_a_gradient_of_zero(tiny_model: Path) -> None:
    settings: dict[str, Any] = {
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1},
        "steps_without_gradient": True,
    }
    learner, stepped = (make_learner(tiny_model, **settings) for _ in range(2))
    before = weights(learner)
    said = "; momentum alone moved the weights"
    assert not any(warning.endswith(said) for warning in learner.update(uniform_groups(), 1).warnings)
    assert torch.equal(weights(learner), before), "there is no momentum yet, and weight decay alone does not count"
    for each in (learner, stepped):
        each.update(some_groups(), 2)
    before = weights(learner)
    result = learner.update(uniform_groups(), 3)
    assert result.metrics["grad_norm"] == 0 and any(warning.endswith(said) for warning in result.warnings)
    stepped.optimizer.step(1e-2, 0.0)
    assert torch.equal(weights(learner), weights(stepped)) and not torch.equal(weights(learner), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"rejection": [{"name": "token_veto", "low": 0.999999, "high": 1.000001}]},
        {"truncated": "mask"},
        {"compute": {"skip_neutral_groups": False}, "loss": {"name": "custom", "function": f"{__name__}:nothing"}},
    ],
)
def test_a_batch_of_which_nothing_is_left_moves_no_weight(tiny_model: Path, changes: dict[str, Any]) -> None:
    """Everything is rejected, masked or worth nothing: what is fed, or not, has a gradient of exactly 0."""
    learner = make_learner(tiny_model, optimizer={"learning_rate": 1e-2, "weight_decay": 0.1}, **changes)
    before = weights(learner)
    moved = make_learner(tiny_model, optimizer={"learning_rate": 1e-2}, **changes)
    moved.optimizer.gradients()[0].fill_(1.0)
    moved.optimizer.step(1e-2, 1.0)
    after = weights(moved)
    cut = [
        replace(
            group,
            rollouts=tuple(
                replace(each, completion=replace(each.completion, finish_reason="length")) for each in group.rollouts
            ),
        )
        for group in some_groups()
    ]
    for each, at in ((learner, before), (moved, after)):
        warnings = each.update(cut, 1).warnings
        assert torch.equal(weights(each), at)
        assert any("masked, rejected or clipped: nothing was learnt" in warning for warning in warnings)


def nothing(tokens: Any) -> torch.Tensor:
    """A loss that is 0 whatever the policy says."""
    return 0.0 * tokens.policy_logprobs


def test_a_small_batch_of_a_sampler_that_disagrees_stops_after_a_few(tiny_model: Path) -> None:
    """Some 30 tokens a time are not the 512 that a stop asks for: together they are."""
    learner = make_learner(tiny_model, watch={"ess_warn": 0, "ess_stop": 0, "min_tokens": 100})
    updates = 0
    with pytest.raises(RunHalted, match="different probabilities: kl_rollout_fresh is"):
        for version in range(1, 9):
            learner.policy_version = 0  # the sampler's, as of every batch of a synchronous run
            learner.update(some_groups(version), version)
            updates += 1
    assert 2 <= updates <= 4


def test_figures_of_several_steps_are_means_over_tokens(tiny_model: Path) -> None:
    """A step of three tokens does not count as much as one of three hundred."""
    rng = np.random.default_rng(5)
    groups = [make_group(rng, [60, 50], [1, 0], group_id=0), make_group(rng, [1, 2], [1, 0], group_id=1)]
    whole = make_learner(tiny_model, optimizer={"learning_rate": 1e-12}).update(groups, 1).metrics
    parts = make_learner(tiny_model, optimizer={"learning_rate": 1e-12}, minibatches=2).update(groups, 1).metrics
    for name in ("entropy", "kl_rollout", "logprob_gap_mean", "logprob_gap_max", "ratio_outside", "correction_mean"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
