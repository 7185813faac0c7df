"""One update: independence of the split, the exactness of what is skipped, halts, resumes, references."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rayzero.learner.model.policy import Policy
from rayzero.learner.objective.losses.base import Tokens
from rayzero.learner.objective.losses.custom import CustomLoss
from rayzero.learner.objective.losses.registry import LossSettings
from rayzero.learner.update import stop_conditions
from rayzero.learner.update.checkpoint import load_learner, save_learner
from rayzero.learner.update.learner import Learner
from rayzero.services.loop.batch_metrics import BatchFigures
from rayzero.services.schema.errors import RunDirectoryError, RunHalted, UpdateTorn
from rayzero.services.schema.messages import Group, Rollout, VersionSpan
from tests.unit.learner.kit import (
    LENIENT,
    gradient,
    make_group,
    make_learner,
    some_groups,
    weights,
    with_rollout_logprobs,
)

NAN = float("nan")


@pytest.mark.parametrize("changes", [{}, {"minibatches": 2, "inner_epochs": 2}])
def test_an_update_tells_each_completions_kl_to_its_sampler(tiny_model: Path, changes: dict[str, Any]) -> None:
    learner, groups = make_learner(tiny_model, **changes), some_groups()
    wanted = {
        group.group_id: [_k3(learner, group, index) for index in range(len(group.rollouts))] for group in groups[:2]
    }
    found = learner.update(groups, 1).rollout_kl
    np.testing.assert_allclose(found[0], [wanted[0][0], wanted[0][1], NAN, wanted[0][3]], rtol=1e-4)  # one is empty
    np.testing.assert_allclose(found[1], [*wanted[1][:3], NAN], rtol=1e-4)  # the last has no verdict
    assert all(map(math.isnan, found[2]))  # equal rewards: nothing to train on


def _k3(learner: Learner, group: Group, index: int) -> float:
    completion = group.rollouts[index].completion
    if not completion.num_tokens:
        return NAN
    gap = learner.score(group.prompt_token_ids, completion.token_ids) - completion.rollout_logprobs
    return float(np.mean(np.expm1(gap) - gap))


LOSSES = [
    str(loss.model_fields["name"].default) for loss in get_args(get_args(LossSettings)[0]) if loss is not CustomLoss
]


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_the_split_never_changes_the_gradient(tiny_model: Path, loss: str, data: st.DataObject) -> None:
    """Any micro-batch size, order of groups, shared or repeated prompts: relative difference at most 1e-5."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    shapes = data.draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=5))
    groups = [
        make_group(
            rng, lengths, rng.choice([0.0, 1.0, 0.3, NAN], len(lengths)).tolist(), group_id=g, prompt_length=g + 2
        )
        for g, lengths in enumerate(shapes)
    ]
    common: dict[str, Any] = {"loss": {"name": loss}, "kl": {"beta": 0.1}, "entropy_coefficient": 0.01}
    whole = gradient(make_learner(tiny_model, **common), groups)
    compute = {"tokens_per_microbatch": data.draw(st.integers(1, 40)), "share_prompts": data.draw(st.booleans())}
    split = gradient(make_learner(tiny_model, compute=compute, **common), data.draw(st.permutations(groups)))
    assert (split - whole).norm() <= 1e-5 * whole.norm() + 1e-12


def by_length(tokens: Tokens) -> Tensor:
    """A loss of a user's: longer completions weigh more, by the mean length of the batch."""
    assert tokens.batch is not None
    lengths = tokens.per_sample_sum(torch.ones_like(tokens.old_logprobs)) / tokens.batch.lengths.mean()
    return -lengths[tokens.samples] * tokens.token_advantages * tokens.policy_logprobs


def test_a_loss_of_ones_own_sees_the_whole_batch_however_it_is_split(tiny_model: Path) -> None:
    changes: dict[str, Any] = {"loss": {"name": "custom", "function": f"{__name__}:by_length"}}
    rng = np.random.default_rng(0)
    groups = [make_group(rng, lengths, [0.0, 1.0], group_id=g) for g, lengths in enumerate([[2, 9], [5, 1], [7, 7]])]
    whole = gradient(make_learner(tiny_model, **changes), groups)
    for tokens in (1, 12, 20):
        split = gradient(make_learner(tiny_model, compute={"tokens_per_microbatch": tokens}, **changes), groups)
        assert (split - whole).norm() <= 1e-5 * whole.norm() and whole.norm() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_skipping_neutral_groups_is_exact(tiny_model: Path, loss: str) -> None:
    gradients = [
        gradient(make_learner(tiny_model, loss={"name": loss}, compute={"skip_neutral_groups": skip}), some_groups())
        for skip in (True, False)
    ]
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def test_neutral_groups_are_not_fed(tiny_model: Path) -> None:
    groups = some_groups()
    fed = [make_learner(tiny_model).update(g, 1).metrics["fed_tokens"] for g in (groups, groups[:2])]
    assert fed[0] == fed[1] == (5 + 4 + 6) + (9 + 8 + 1 + 2)
    pulled = make_learner(tiny_model, kl={"beta": 0.1}).update(groups, 1).metrics["fed_tokens"]
    assert pulled == fed[0] + 2 + 3 + 3


def test_an_error_verdict_is_as_if_it_had_not_been(tiny_model: Path) -> None:
    with_error = some_groups()
    without = [with_error[0], *some_groups()[1:]]
    group = without[1]
    without[1] = Group(
        group_id=1, prompt=group.prompt, prompt_token_ids=group.prompt_token_ids, rollouts=group.rollouts[:3]
    )
    one, other = gradient(make_learner(tiny_model), with_error), gradient(make_learner(tiny_model), without)
    assert torch.equal(one, other)


def test_nothing_to_learn_is_said_and_harmless(tiny_model: Path) -> None:
    rng = np.random.default_rng(0)
    for lengths, rewards in (([3, 4], [1, 1]), ([3], [1]), ([3, 4], [NAN, NAN]), ([0, 0], [1, 0])):
        learner = make_learner(tiny_model)
        before = weights(learner)
        result = learner.update([make_group(rng, lengths, rewards)], 1)
        assert all(math.isfinite(value) for value in result.metrics.values())
        assert torch.equal(weights(learner), before)
        assert result.warnings or lengths == [0, 0]
        assert learner.policy_version == 1


def test_updates_raise_the_probability_of_what_is_rewarded(tiny_model: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        learner = make_learner(tiny_model, dtype, optimizer={"learning_rate": 3e-3}, correction={"name": "none"})
        groups = some_groups()
        good, bad = (groups[0].rollouts[i].completion.token_ids for i in (0, 1))
        prompt = groups[0].prompt_token_ids
        before = [float(learner.score(prompt, ids).sum()) for ids in (good, bad)]
        for version in range(1, 6):
            learner.update(groups, version)
        after = [float(learner.score(prompt, ids).sum()) for ids in (good, bad)]
        assert after[0] > before[0] and after[1] < before[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"inner_epochs": 2, "minibatches": 2, "loss": {"name": "gspo"}},
        {"kl": {"beta": 0.1, "refresh_every_updates": 2}},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_resume_is_bit_exact(tiny_model: Path, tmp_path: Path, changes: dict[str, Any], dtype: str) -> None:
    straight = make_learner(tiny_model, dtype, **changes)
    for update in range(5):
        expected = straight.update(some_groups(update), update + 1)
    interrupted = make_learner(tiny_model, dtype, **changes)
    for update in range(3):
        interrupted.update(some_groups(update), update + 1)
    save_learner(interrupted, tmp_path)
    resumed = make_learner(tiny_model, dtype, **changes)
    load_learner(resumed, tmp_path)
    assert resumed.policy_version == 3
    for update in (3, 4):
        result = resumed.update(some_groups(update), update + 1)
    assert torch.equal(weights(resumed), weights(straight))
    for name, value in expected.metrics.items():
        assert name.endswith("_s") or result.metrics[name] == value


@pytest.mark.parametrize("file", ["learner.pt", "part_0000.pt"])
def test_a_full_disk_is_no_failure_of_the_learner(file: str, tiny_model: Path, tmp_path: Path) -> None:
    """Started anew, it would find the disk as full."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / file).symlink_to("/dev/full")
    with pytest.raises(RunDirectoryError, match=r"its disk has \d+ MiB left"):
        save_learner(make_learner(tiny_model), tmp_path)


def test_the_saved_checkpoint_is_a_model(tiny_model: Path, tmp_path: Path) -> None:
    learner = make_learner(tiny_model)
    learner.update(some_groups(), 1)
    save_learner(learner, tmp_path)
    again = Policy(tmp_path, dtype="float32")
    for (name, ours), (other, theirs) in zip(learner.policy.named_weights(), again.named_weights(), strict=True):
        assert name == other and torch.equal(ours, theirs)


def test_one_step_needs_no_second_forward(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    logprobs = Policy.logprobs

    def counted(self: Policy, *args: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return logprobs(self, *args)

    monkeypatch.setattr(Policy, "logprobs", counted)
    unwatched = LENIENT | {"sample_tokens": 0}
    make_learner(tiny_model, watch=unwatched).update(some_groups(), 1)
    assert calls == [True]
    calls.clear()
    make_learner(tiny_model, watch=unwatched, inner_epochs=2).update(some_groups(), 1)
    assert calls == [False, True, True]


def test_the_ratio_is_measured_from_the_start_of_the_batch(tiny_model: Path) -> None:
    """With several epochs pi_old stays; in the second the ratio has moved."""
    one = make_learner(tiny_model, optimizer={"learning_rate": 1e-2}).update(some_groups(), 1)
    two = make_learner(tiny_model, optimizer={"learning_rate": 1e-2}, inner_epochs=3).update(some_groups(), 1)
    assert one.metrics["ratio_mean"] == 1.0 and one.metrics["clip_fraction"] == 0.0
    assert two.metrics["ratio_mean"] != 1.0 and two.metrics["clip_fraction"] > 0.0


def test_no_reference_is_held_without_beta(tiny_model: Path) -> None:
    assert make_learner(tiny_model).policy.reference_state(lambda weight: weight) is None
    learner = make_learner(tiny_model, kl={"beta": 0.1})
    first = learner.update(some_groups(), 1).metrics["kl_reference"]
    second = learner.update(some_groups(), 2).metrics["kl_reference"]
    assert first == 0.0 and second > 0.0


def test_the_reference_is_refreshed(tiny_model: Path) -> None:
    learner = make_learner(tiny_model, kl={"beta": 0.1, "refresh_every_updates": 2})
    figures = [learner.update(some_groups(), version).metrics["kl_reference"] for version in range(1, 5)]
    assert figures[0] == 0.0 and figures[1] > 0.0 and figures[2] == 0.0 and figures[3] > 0.0


@pytest.mark.parametrize("changes", [{}, {"minibatches": 2}, {"kl": {"beta": 0.1, "estimator": "k2"}}])
def test_a_policy_that_is_its_reference_is_not_pulled_by_rounding(
    tiny_model: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored in other micro-batches, the reference would differ by rounding, and Adam would make a step of it."""
    rng = np.random.default_rng(0)
    groups = [make_group(rng, [3, 7, 5], [1, 1, 1], group_id=number) for number in range(4)]
    learner = make_learner(tiny_model, **{"kl": {"beta": 0.1}, **changes})
    exact = learner.policy.reference_logprobs
    monkeypatch.setattr(learner.policy, "reference_logprobs", lambda microbatch: exact(microbatch) + 1e-6)
    before = weights(learner)
    figures = learner.update(groups, 1).metrics
    assert figures["grad_norm"] == figures["kl_reference"] == 0
    assert torch.equal(weights(learner), before)


def test_kl_in_the_reward_moves_advantages(tiny_model: Path) -> None:
    learner = make_learner(tiny_model, kl={"beta": 0.5, "place": "reward", "estimator": "k1"}, advantage="mean_centred")
    figures = [learner.update(some_groups(), version).metrics for version in (1, 2)]
    assert figures[0]["advantage_abs_mean"] != figures[1]["advantage_abs_mean"]


def test_a_nan_stops_before_the_step(tiny_model: Path) -> None:
    learner = make_learner(tiny_model)
    with torch.no_grad():
        dict(learner.policy.named_parameters())["model.norm.weight"][0] = NAN
    before = weights(learner)
    with pytest.raises(RunHalted, match="loss is nan"):
        learner.update(some_groups(), 1)
    assert torch.equal(weights(learner).nan_to_num(), before.nan_to_num())
    assert learner.policy_version == 0 and learner.num_updates_done == 0


def test_a_nan_after_the_first_step_says_that_the_weights_are_no_version(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(tiny_model, minibatches=2, inner_epochs=2)
    checked: list[object] = []

    def fail_at_third(figures: object, *_: object) -> list[str]:
        checked.append(figures)
        if len(checked) == 3:
            raise RunHalted("loss is nan")
        return []

    monkeypatch.setattr(stop_conditions, "check", fail_at_third)
    before = weights(learner)
    with pytest.raises(UpdateTorn, match=r"step 3 of the update was refused, those before it were taken: loss is nan"):
        learner.update(some_groups(), 1)
    assert not torch.equal(weights(learner), before)
    assert learner.policy_version == 0


def test_a_sampler_that_disagrees_at_equal_weights_stops(tiny_model: Path) -> None:
    learner = make_learner(tiny_model, watch={"ess_warn": 0, "ess_stop": 0, "min_tokens": 1})
    before = weights(learner)
    with pytest.raises(RunHalted, match=r"kl_rollout_fresh is.*figures: .*grad_norm="):
        learner.update(some_groups(), 1)
    assert torch.equal(weights(learner), before)


def test_a_sampler_that_agrees_does_not_even_warn(tiny_model: Path) -> None:
    learner = make_learner(tiny_model, temperature=0.8, watch={})
    groups = [with_rollout_logprobs(group, learner.score) for group in some_groups()]
    result = learner.update(groups, 1)
    assert result.warnings == ()
    assert result.metrics["kl_rollout_fresh"] < 1e-10
    assert result.metrics["ess"] == pytest.approx(1.0)


def test_stale_tokens_are_not_held_against_the_sampler(tiny_model: Path) -> None:
    learner = make_learner(tiny_model, watch={"ess_warn": 0, "ess_stop": 0, "min_tokens": 1})
    learner.policy_version = 4
    assert "kl_rollout_fresh" not in learner.update(some_groups(), 5).metrics


def test_tokens_that_old_keys_had_part_in_are_not_held_against_the_sampler(tiny_model: Path) -> None:
    def crossed(group: Group, rollout: Rollout) -> Rollout:
        number = rollout.completion.num_tokens
        begun = VersionSpan(start=0, end=number // 2, policy_version=3)
        ended = VersionSpan(start=number // 2, end=number, policy_version=4)
        return replace(rollout, completion=replace(rollout.completion, version_spans=(begun, ended)))

    groups = [replace(g, rollouts=tuple(crossed(g, rollout) for rollout in g.rollouts)) for g in some_groups()]
    watch = {"ess_warn": 0, "ess_stop": 0, "min_tokens": 1}
    for stale_cache in (True, False):
        learner = make_learner(tiny_model, watch=watch, stale_cache=stale_cache)
        learner.policy_version = 4
        if stale_cache:
            assert learner.update(groups, 5).metrics["fresh_tokens"] == 0
        else:
            with pytest.raises(RunHalted, match="kl_rollout_fresh is"):
                learner.update(groups, 5)


def test_score_is_at_the_temperature_asked_for(tiny_model: Path) -> None:
    group = some_groups()[0]
    prompt, ids = group.prompt_token_ids, group.rollouts[0].completion.token_ids
    cold = make_learner(tiny_model, temperature=0.5)
    warm = make_learner(tiny_model)
    np.testing.assert_array_equal(cold.score(prompt, ids, 1.0), warm.score(prompt, ids))
    assert not np.allclose(cold.score(prompt, ids), warm.score(prompt, ids))
    assert len(warm.score(prompt, ids[:0])) == 0


def test_the_learner_computes_no_figure_that_the_batch_has_by_itself(tiny_model: Path) -> None:
    """One name has one owner: the controller puts both into one row of metrics.jsonl."""
    result = make_learner(tiny_model).update(some_groups(), 1)
    assert result.metrics.keys().isdisjoint(BatchFigures.of(some_groups()).row())
