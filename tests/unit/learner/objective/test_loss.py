"""Every objective through the real update, against slow loops on transformers' own forward pass: the whole gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rayzero.learner.objective.losses.base import TokenLosses
from rayzero.learner.update.learner import Learner
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import FinishReason, Group, Rollout
from tests.reference import objectives
from tests.unit.learner.kit import gradient, make_group, make_learner

GRPO: dict[str, Any] = {"name": "grpo", "ratio": "token", "clip_low": 0.2, "clip_high": 0.2}
NONE: dict[str, Any] = {"name": "none"}
TRUNCATED: dict[str, Any] = {"name": "token_truncation", "limit": 2.0}
BYPASS: dict[str, Any] = {"name": "rollout_as_old"}

CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "bypass": {"correction": BYPASS},
    "bypass, gspo": {"loss": {"name": "gspo", "clip_low": 0.05, "clip_high": 0.05}, "correction": BYPASS},
    "bypass, cispo": {"loss": {"name": "cispo", "clip_low": 1.0, "clip_high": 0.1}, "correction": BYPASS},
    "bypass, dual clip": {"loss": {**GRPO, "dual_clip": 1.1}, "correction": BYPASS},
    "bypass, sapo": {"loss": {"name": "sapo", "tau_positive": 1.0, "tau_negative": 1.05}, "correction": BYPASS},
    "sapo": {"loss": {"name": "sapo", "tau_positive": 2.0, "tau_negative": 3.0}},
    "sequence mask": {"rejection": [{"name": "sequence_mask", "high": 1.2}]},
    "veto and mask": {"rejection": [{"name": "token_veto", "low": 0.7}, {"name": "token_mask", "high": 1.15}]},
    "off-policy mask": {"rejection": [{"name": "off_policy_mask", "limit": 0.01}]},
    "truncated masked": {"truncated": "mask"},
    "truncated masked, dapo": {
        "loss": {"name": "dapo", "clip_low": 0.2, "clip_high": 0.28}, "truncated": "mask"
    },
    "token mean": {"aggregation": "token_mean"},
    "token mean of groups": {"aggregation": "group_token_mean", "truncated": "mask"},
    "constant": {"aggregation": "constant"},
    "maxrl": {"advantage": "mean_normalised"},
    "unbiased kl": {"kl": {"beta": 0.3, "unbiased": True}, "correction": BYPASS},
}  # fmt: skip


def groups_near(learner: Learner) -> list[Group]:
    """Ragged groups whose sampler was near the policy; one completion is cut off, one empty, one verdict an error."""
    rng = np.random.default_rng(11)
    made = [
        make_group(rng, [5, 7, 0, 3], [1, 0, 1, 0.5], group_id=0),
        make_group(rng, [9, 2, 6, 4], [0, 1, 0, np.nan], group_id=1, prompt_length=9),
        make_group(rng, [4, 8], [1, 1], group_id=2),
    ]

    def near(group: Group, index: int, rollout: Rollout) -> Rollout:
        completion = rollout.completion
        scores = learner.score(group.prompt_token_ids, completion.token_ids)
        noisy = (scores + 0.12 * rng.standard_normal(len(scores))).astype(np.float32)
        reason: FinishReason = "length" if index == 1 else "stop"
        return replace(rollout, completion=replace(completion, rollout_logprobs=noisy, finish_reason=reason))

    return [replace(g, rollouts=tuple(near(g, i, r) for i, r in enumerate(g.rollouts))) for g in made]


def expected_gradient(model: Path, groups: list[Group], case: dict[str, Any], names: list[str]) -> torch.Tensor:
    """Central differences of the loops in every log-probability, carried through transformers' model."""
    hf = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    columns = [[_logprobs(hf, group, rollout) for rollout in group.rollouts] for group in groups]
    batch = [
        [
            {
                **{name: column.tolist() for name in ("policy", "old", "reference")},
                "rollout": rollout.completion.rollout_logprobs.tolist(),
                "entropy": [0.0] * len(column),
                "reward": rollout.verdict.reward,
                "truncated": rollout.completion.finish_reason == "length",
            }
            for rollout, column in zip(group.rollouts, of_group, strict=True)
        ]
        for group, of_group in zip(groups, columns, strict=True)
    ]
    correction = case.get("correction", TRUNCATED)
    for completion in (completion for group in batch for completion in group):
        before = completion["rollout" if correction is BYPASS else "old"]
        completion["frozen_ratios"] = np.exp(np.subtract(completion["policy"], before)).tolist()
    rewards = [[completion["reward"] for completion in group] for group in batch]
    advantages = objectives.batch_advantages(rewards, case.get("advantage", "std_normalised"))
    kl = case.get("kl", {})
    arguments: dict[str, Any] = {
        "loss": case.get("loss", GRPO), "correction": correction, "rejection": case.get("rejection"),
        "aggregation": case.get("aggregation"), "mask_truncated": case.get("truncated") == "mask",
        "beta": kl.get("beta", 0.0), "unbiased": kl.get("unbiased", False),
    }  # fmt: skip
    total = torch.zeros(())
    for group, of_group in zip(batch, columns, strict=True):
        for completion, column in zip(group, of_group, strict=True):
            slopes = []
            for t, at in enumerate(list(completion["policy"])):
                sides = []
                for step in (1e-5, -1e-5):
                    completion["policy"][t] = at + step
                    sides.append(objectives.objective(batch, advantages, **arguments))
                completion["policy"][t] = at
                slopes.append((sides[0] - sides[1]) / 2e-5)
            total = total + (torch.tensor(slopes) * column).sum()
    total.backward()
    parameters = dict(hf.named_parameters())
    return torch.cat([parameters[name].grad.flatten() for name in names])


def _logprobs(model: Any, group: Group, rollout: Rollout) -> torch.Tensor:
    start = len(group.prompt_token_ids)
    tokens = torch.from_numpy(np.concatenate([group.prompt_token_ids, rollout.completion.token_ids]).astype(np.int64))
    logprobs = torch.log_softmax(model(tokens[None]).logits[0], -1)[start - 1 : -1]
    return logprobs.gather(1, tokens[start:, None])[:, 0]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_gradient_of_an_update_is_that_of_the_paper(tiny_model: Path, case: dict[str, Any]) -> None:
    learner = make_learner(tiny_model, **case)
    groups = groups_near(learner)
    names = [name for name, _ in learner.policy.named_parameters()]
    expected = expected_gradient(tiny_model, groups, case, names)
    found = gradient(learner, groups)
    assert expected.norm() > 0
    assert (found - expected).norm() <= 2e-4 * expected.norm()


def test_components_reach_the_advantage(tiny_model: Path) -> None:
    """GDPO through the update: rewards that are equal as sums, and are not by their parts."""
    rng = np.random.default_rng(3)
    group = make_group(rng, [5, 6, 4], [1.0, 1.0, 1.0])
    parts = [{"a": (1.0, 1.0), "f": (0.5, 0.0)}, {"a": (1.0, 0.0), "f": (0.5, 1.0)}, {"a": (1.0, 1.0)}]
    rollouts = tuple(
        replace(rollout, verdict=replace(rollout.verdict, parts=each))
        for rollout, each in zip(group.rollouts, parts, strict=True)
    )
    group = replace(group, rollouts=rollouts)
    assert not gradient(make_learner(tiny_model), [group]).any()
    found = gradient(make_learner(tiny_model, advantage="component_normalised"), [group])
    wanted = objectives.gdpo_advantages([parts])[0]
    as_rewards = [replace(r, verdict=replace(r.verdict, reward=a)) for r, a in zip(group.rollouts, wanted, strict=True)]
    plain = replace(group, rollouts=tuple(as_rewards))
    # The advantages are of mean 0 over the group already.
    expected = gradient(make_learner(tiny_model, advantage="mean_centred"), [plain])
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def plain(tokens: Any, scale: float) -> torch.Tensor:
    """A loss as a user writes one."""
    return -scale * tokens.token_advantages * tokens.policy_logprobs


def no_tensor(tokens: Any) -> float:
    return 1.0


def no_gradient(tokens: Any) -> torch.Tensor:
    return tokens.token_advantages + 0.0


def one_a_completion(tokens: Any) -> TokenLosses:
    values = tokens.per_sample_sum(tokens.policy_logprobs)
    return TokenLosses(values=values, clipped=values.isnan())


def broken(tokens: Any) -> torch.Tensor:
    raise KeyError("no such column")


def near_old(tokens: Any, strength: float) -> torch.Tensor:
    """Policy gradient and a square that holds each token at its old log-probability, with an advantage or without."""
    held: torch.Tensor = strength * (tokens.log_ratios - 0.1).square()
    return held - tokens.token_advantages * tokens.policy_logprobs


def test_a_loss_by_import_path(tiny_model: Path) -> None:
    """At the first step the gradient of REINFORCE is that of dapo's surrogate."""
    custom = {"name": "custom", "function": f"{__name__}:plain", "arguments": {"scale": 2.0}}
    groups = groups_near(make_learner(tiny_model))
    ours = gradient(make_learner(tiny_model, loss=custom, correction=NONE), groups)
    theirs = gradient(make_learner(tiny_model, loss={"name": "dapo"}, correction=NONE), groups)
    assert (ours - 2 * theirs).norm() <= 1e-5 * ours.norm()


def test_a_loss_that_is_none_is_refused_with_its_name(tiny_model: Path) -> None:
    for name in ("no.such.module:loss", f"{__name__}:missing"):
        with pytest.raises(RecipeError, match=f"learner.loss.function: {name} cannot be imported"):
            make_learner(tiny_model, loss={"name": "custom", "function": name})
    with pytest.raises(RecipeError, match=r"learner\.loss\.arguments do not fit .*:plain: .*'scale'"):
        make_learner(tiny_model, loss={"name": "custom", "function": f"{__name__}:plain", "arguments": {"scal": 1}})
    for name, words in (
        ("no_tensor", r"must return one value a token, a tensor of shape .*, not float"),
        ("one_a_completion", r"a tensor of shape \(\d+,\), not one of shape \(\d+,\)"),
        ("no_gradient", r"must return values that depend on tokens\.policy_logprobs"),
        ("broken", r"KeyError: 'no such column' \(.*test_loss\.py, line \d+\)"),
    ):
        learner = make_learner(tiny_model, loss={"name": "custom", "function": f"{__name__}:{name}"})
        with pytest.raises(RecipeError, match=rf":{name} .*{words}"):
            learner.update(groups_near(learner), 1)


def test_a_loss_of_the_users_own_sees_completions_without_an_advantage(tiny_model: Path) -> None:
    """What it pulls at there is not exactly zero: leaving it out would be another loss than the one that was given."""
    custom = {"name": "custom", "function": f"{__name__}:near_old", "arguments": {"strength": 0.5}}
    learner = make_learner(tiny_model, loss=custom)
    groups = groups_near(learner)
    found = gradient(learner, groups)
    all_fed = {"skip_neutral_groups": False}
    assert torch.equal(found, gradient(make_learner(tiny_model, loss=custom, compute=all_fed), groups))
    uniform = [replace(group, rollouts=group.rollouts[:1] * 2) for group in groups]
    assert gradient(make_learner(tiny_model, loss=custom), uniform).norm() > 0
    alone = LearnerSettings.model_validate({"loss": custom, "advantage": "none"})
    assert alone.advantage_name == "none"


def test_masked_completions_still_count_in_their_group(tiny_model: Path) -> None:
    """Their reward is in the mean that the others are held against; their tokens move nothing."""
    learner = make_learner(tiny_model, truncated="mask")
    groups = groups_near(learner)
    figures = learner.update(groups, 1).metrics
    unmasked = make_learner(tiny_model).update(groups, 1).metrics
    assert figures["advantage_abs_mean"] == unmasked["advantage_abs_mean"]
    assert figures["fed_tokens"] < unmasked["fed_tokens"]
