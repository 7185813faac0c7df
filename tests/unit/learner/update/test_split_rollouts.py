"""Episodes as trees against the same episodes one path a row, in transformers' own forward pass: whole or in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rayzero.learner.batch.batching import pack
from rayzero.learner.batch.samples import Batch, make_batch
from rayzero.learner.model import attention, token_scorer
from rayzero.learner.objective.advantage import ADVANTAGES
from rayzero.learner.objective.loss import LossInputs, LossOutputs, microbatch_loss
from rayzero.learner.objective.losses.base import AGGREGATIONS, BatchShape, Tokens
from rayzero.learner.update.step_inputs import Scores
from rayzero.services.schema.config.learner import LearnerSettings
from rayzero.services.schema.episodes import Turn
from rayzero.services.schema.messages import Group
from tests.reference.objectives import turn_credits
from tests.unit.learner.episodes import episode_group, own_model, row_by_row, with_turns
from tests.unit.learner.kit import gradient, make_learner

LOSSES: list[dict[str, Any]] = [
    {"loss": {"name": "grpo"}},
    {"loss": {"name": "grpo", "ratio": "sequence"}, "correction": {"name": "sequence_truncation"}},
    {"loss": {"name": "dr_grpo"}, "kl": {"beta": 0.1}},
    {"loss": {"name": "dapo"}, "aggregation": "group_token_mean", "entropy_coefficient": 0.01},
    {"loss": {"name": "gspo", "clip_low": 0.3, "clip_high": 0.3}, "rejection": [{"name": "token_veto", "low": 1e-4}]},
    {"loss": {"name": "cispo"}, "correction": {"name": "icepop", "low": 0.01, "high": 100.0}},
    {"loss": {"name": "rloo"}, "rejection": [{"name": "off_policy_mask", "limit": 0.5}]},
    {"loss": {"name": "reinforce++"}, "correction": {"name": "rollout_as_old"}},
    {"loss": {"name": "sapo"}, "correction": {"name": "none"}},
    {"loss": {"name": "custom", "function": f"{__name__}:own_loss"}},
    {"loss": {"name": "grpo"}, "credit": {"name": "discounted", "discount": 0.8}},
    {"loss": {"name": "dapo"}, "credit": {"name": "progress"}, "advantage": "batch_normalised"},
]  # fmt: skip


def own_loss(tokens: Tokens) -> Tensor:
    """A user's, over whole rollouts: no micro-batch with a part of one could compute it."""
    sums = tokens.per_sample_sum(tokens.log_ratios)
    return -(torch.tanh(sums) * tokens.advantages)[tokens.samples] * tokens.policy_logprobs


def some_episodes(seed: int, max_branches: int = 5) -> list[Group]:
    rng = np.random.default_rng(seed)
    return [
        with_turns(episode_group(rng, rewards, group_id=group, prompt_length=length, max_branches=max_branches), seed)
        for group, (rewards, length) in enumerate([([1.0, 0.0, 0.3], 6), ([0.0, 1.0, np.nan, 1.0], 3)])
    ]


def starting_scores(batch: Batch) -> Scores:
    """As if the policy had moved since the start of the batch, so that every ratio says something."""
    noise = torch.Generator().manual_seed(batch.num_tokens)
    rollout = torch.from_numpy(batch.rollout_logprobs)
    old = rollout + 0.3 * torch.randn(batch.num_tokens, generator=noise)
    return Scores(old=old, reference=old + 0.3 * torch.randn(batch.num_tokens, generator=noise))


def by_rows(model: Any, groups: Sequence[Group], changes: dict[str, Any]) -> tuple[LossOutputs, Tensor]:
    """(loss, gradient) with one path a row, in float64."""
    chosen, batch = LearnerSettings.model_validate(changes), make_batch(groups)
    model.zero_grad()
    policy, entropies = row_by_row(model, groups)
    lengths = np.array([rollout.completion.num_sampled for group in groups for rollout in group.judged])
    owners = np.repeat(np.arange(len(groups)), [len(group.judged) for group in groups])
    shape = BatchShape(groups=owners, lengths=lengths, max_completion_tokens=16)
    scores = starting_scores(batch)
    weigh = chosen.loss.token_weights if chosen.aggregation is None else AGGREGATIONS[chosen.aggregation]
    rewards = np.array([rollout.verdict.reward for group in groups for rollout in group.judged])
    assert scores.old is not None and scores.reference is not None
    outputs = microbatch_loss(
        LossInputs(
            policy_logprobs=policy,
            entropies=entropies,
            old_logprobs=scores.old.double(),
            rollout_logprobs=torch.from_numpy(batch.rollout_logprobs).double(),
            reference_logprobs=scores.reference.double() if chosen.kl.beta else None,
            samples=torch.repeat_interleave(torch.arange(len(lengths)), torch.from_numpy(lengths)),
            advantages=torch.from_numpy(ADVANTAGES[chosen.advantage_name](rewards, owners)),
            token_weights=torch.from_numpy(weigh(shape)),
            turn_advantages=None if chosen.credit.name == "episode" else of_turns(groups, chosen),
        ),
        chosen,
    )
    outputs.loss.backward()
    return outputs, torch.cat([p.grad.flatten() for p in model.parameters()])


def of_turns(groups: Sequence[Group], chosen: LearnerSettings) -> Tensor:
    """[N] each token's, turn by turn, by the slow reference."""
    assert chosen.credit.name != "episode"
    nothing = Turn(start=0, end=0, finish_reason="stop")
    turns = [
        [[turn for path in rollout.completion.paths for turn in path.turns] or [nothing] for rollout in group.judged]
        for group in groups
    ]
    said = [
        [
            ([turn.reward for turn in own], rollout.verdict.reward)
            for own, rollout in zip(each, group.judged, strict=True)
        ]
        for each, group in zip(turns, groups, strict=True)
    ]
    given = turn_credits(said, chosen.credit.name, chosen.credit.discount, chosen.advantage_name)
    return torch.tensor(
        [
            value
            for of_group, advantages in zip(turns, given, strict=True)
            for own, values in zip(of_group, advantages, strict=True)
            for turn, value in zip(own, values, strict=True)
            for _ in range(turn.start, turn.end)
        ],
        dtype=torch.float64,
    )


def plain_head(hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float, **_: Any) -> list[Tensor]:
    """The head in float64: what is left between tree and rows is no rounding of fp32."""
    scores = torch.log_softmax(hidden @ weight.t() / temperature, -1)
    return [scores.gather(1, targets[:, None])[:, 0], -(scores.exp() * scores).sum(-1)]


def by_tree(model: Path, groups: Sequence[Group], changes: dict[str, Any], budget: int) -> tuple[Any, Tensor]:
    """(record of the step, gradient) of an update in float64."""
    compute = {"tokens_per_microbatch": budget, "skip_neutral_groups": False}
    learner = make_learner(model, compute=compute, **changes)
    learner.policy.model.double()
    records: list[Any] = []
    step = learner._step

    def scores(batch: Batch) -> Scores:
        made = starting_scores(batch)
        return made if "kl" in changes else Scores(made.old, None)

    learner._scores = scores  # type: ignore[method-assign]
    learner._is_reference = False  # the scores above are another policy's
    learner._step = lambda *given, **named: (  # type: ignore[method-assign]
        records.append(step(*given, **named)) or records[-1]
    )
    found = gradient(learner, groups)
    return records[0], found


def compare(model: Path, changes: dict[str, Any], seed: int, budget: int, dense_tokens: int) -> None:
    groups = some_episodes(seed)
    outputs, expected = by_rows(own_model(model), groups, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_DENSE_TOKENS", dense_tokens)
        patch.setattr(token_scorer, "token_logprobs", plain_head)
        record, found = by_tree(model, groups, changes, budget)
    assert (found - expected).norm() <= 1e-6 * expected.norm() + 1e-10
    assert record.figures["loss"] == pytest.approx(outputs.loss.item(), rel=1e-6, abs=1e-7)
    assert record.figures["correction_mean"] == pytest.approx(outputs.correction.mean().item(), rel=1e-6)
    assert record.figures["clip_fraction"] == pytest.approx(outputs.clipped.double().mean().item(), abs=1e-6)


SEEDS, BUDGETS, DENSE = st.integers(0, 10**6), st.integers(1, 120), st.sampled_from([0, 30, 512])


@pytest.mark.parametrize("changes", LOSSES, ids=lambda changes: changes["loss"]["name"])
@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=SEEDS, budget=BUDGETS, dense_tokens=DENSE)
def test_a_tree_has_the_loss_and_the_gradient_of_its_rows(
    tiny_model: Path, changes: dict[str, Any], seed: int, budget: int, dense_tokens: int
) -> None:
    compare(tiny_model, changes, seed, budget, dense_tokens)


@pytest.mark.long
@pytest.mark.parametrize("changes", LOSSES, ids=lambda changes: changes["loss"]["name"])
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=SEEDS, budget=BUDGETS, dense_tokens=DENSE)
def test_many_trees_have_the_losses_and_the_gradients_of_their_rows(
    any_model: Path, changes: dict[str, Any], seed: int, budget: int, dense_tokens: int
) -> None:
    compare(any_model, changes, seed, budget, dense_tokens)


@pytest.mark.parametrize("budget", [1, 40])
def test_figures_of_an_update_do_not_depend_on_the_split(tiny_model: Path, budget: int) -> None:
    def made(tokens: int) -> Any:
        learner = make_learner(
            tiny_model, compute={"tokens_per_microbatch": tokens}, loss={"name": "gspo"}, entropy_coefficient=0.01
        )
        return learner.update(some_episodes(3, max_branches=8), 1)

    whole, parted = made(10**6), made(budget)
    for name in ("loss", "grad_norm", "entropy", "kl_rollout", "ratio_mean", "fresh_tokens", "ess", "correction_mean"):
        assert parted.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-4, abs=1e-6), name
    for group_id, values in whole.rollout_kl.items():
        np.testing.assert_allclose(parted.rollout_kl[group_id], values, rtol=1e-4)


def test_the_random_episodes_are_split_and_nested_at_all() -> None:
    """Or the tests above would say nothing."""
    split = nested = deep = 0
    for seed in range(20):
        for microbatch in pack(make_batch(some_episodes(seed)).samples, tokens_per_microbatch=20):
            split += microbatch.partial
            nested += any(tree.forks for tree in microbatch.trees)
            deep += any(len(each.context) > 2 for tree in microbatch.trees for each in tree.completions)
    assert split > 10 and nested > 10 and deep > 10


def test_observed_tokens_teach_nothing(tiny_model: Path) -> None:
    """Their words count as context alone: no log-probability of theirs is known, and none is missed."""
    figures = make_learner(tiny_model).update(some_episodes(5), 1)
    assert figures.metrics["nonfinite_logprobs"] == 0
    sampled = sum(rollout.completion.num_sampled for group in some_episodes(5) for rollout in group.judged)
    assert figures.metrics["fresh_tokens"] == sampled
