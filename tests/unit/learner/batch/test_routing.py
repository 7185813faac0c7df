"""Recorded experts are laid where their tokens are, in shared prompts, episodes and parts of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.routing import UNKNOWN
from rayzero.learner.batch.samples import make_batch
from rayzero.services.schema.episodes import Branch
from rayzero.services.schema.messages import Completion, Group
from tests.unit.learner.kit import make_group

LAYERS, CHOSEN = 2, 3


def rows_of(token_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Rows that tell which token they are of."""
    layers = np.arange(LAYERS * CHOSEN, dtype=np.uint8).reshape(LAYERS, CHOSEN)
    return (token_ids[:, None, None] + layers).astype(np.uint8)


def routed(group: Group, known: int | None = None) -> Group:
    """The group with rows of all tokens that are fed, or of the first `known` of each run."""

    def of(completion: Completion) -> Completion:
        branches = tuple(replace(each, completion=of(each.completion)) for each in completion.branches)
        rows = rows_of(completion.token_ids)[:-1][:known]
        return replace(completion, routed_experts=rows, branches=branches)

    rollouts = tuple(replace(rollout, completion=of(rollout.completion)) for rollout in group.rollouts)
    return replace(group, rollouts=rollouts, prompt_routed_experts=rows_of(group.prompt_token_ids)[:known])


def branched(group: Group) -> Group:
    """Its first completion with a branch that leaves it after two tokens."""
    first, *rest = group.rollouts
    fork = len(group.prompt_token_ids) + 2
    branch = Branch(parent=0, fork=fork, completion=group.rollouts[1].completion, reason="rewritten")
    return replace(
        group, rollouts=(replace(first, completion=replace(first.completion, branches=(branch,))), *rest)
    )  # fmt: skip


def laid(*groups: Group, budget: int = 1000) -> list[Microbatch]:
    return pack(make_batch(groups).samples, tokens_per_microbatch=budget)


@pytest.mark.parametrize("budget", [9, 14, 1000])
def test_each_row_lies_where_its_token_is_fed(budget: int) -> None:
    rng = np.random.default_rng(0)
    plain = make_group(rng, [6, 4, 1], [1, 0, 0])
    for microbatch in laid(routed(plain), routed(branched(make_group(rng, [6, 4], [1, 0]))), budget=budget):
        assert microbatch.routed_experts is not None and microbatch.routed_experts.dtype == np.int16
        np.testing.assert_array_equal(microbatch.routed_experts, rows_of(microbatch.token_ids.astype(np.int32)))


def test_tokens_without_a_row_are_marked() -> None:
    rng = np.random.default_rng(1)
    group = make_group(rng, [6], [1], prompt_length=5)
    (microbatch,) = laid(routed(group, known=3))
    assert microbatch.routed_experts is not None
    known = (microbatch.routed_experts != UNKNOWN).all(axis=(1, 2))
    assert known.tolist() == [*([True] * 3), False, False, *([True] * 3), False, False]
    mixed = laid(routed(group), make_group(rng, [4], [1], group_id=1))
    assert sum(int((each.routed_experts == UNKNOWN).any(axis=(1, 2)).sum()) for each in mixed
               if each.routed_experts is not None) == 5 + 3  # fmt: skip


def test_where_nothing_is_recorded_nothing_is_laid() -> None:
    group = make_group(np.random.default_rng(2), [6], [1])
    assert laid(group)[0].routed_experts is None
    assert laid(routed(group, known=0))[0].routed_experts is None


def test_records_of_two_models_are_refused() -> None:
    rng = np.random.default_rng(3)
    one, other = (routed(make_group(rng, [4], [1], group_id=number)) for number in range(2))
    assert other.prompt_routed_experts is not None
    other = replace(other, prompt_routed_experts=other.prompt_routed_experts[:, :1])
    with pytest.raises(ValueError, match=r"2 shapes of \(layers, experts a token\)"):
        laid(one, other)
