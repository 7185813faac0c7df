"""Packing: nothing lost, nothing doubled, positions and predictors right, budget and balance kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import MIXED, TrainingSample, make_batch
from rayzero.services.schema.messages import VersionSpan
from tests.unit.learner.kit import make_group

SHAPES = st.lists(
    st.tuples(st.integers(1, 12), st.lists(st.integers(0, 9), min_size=1, max_size=6)), min_size=1, max_size=6
)


def samples_of(shapes: list[tuple[int, list[int]]]) -> list[TrainingSample]:
    rng = np.random.default_rng(0)
    groups = [
        make_group(rng, lengths, [0.0] * len(lengths), prompt_length=prompt, group_id=g)
        for g, (prompt, lengths) in enumerate(shapes)
    ]
    return list(make_batch(groups).samples)


def context_of(microbatch: Microbatch, at: int) -> list[int]:
    """The tokens that position `at` may see, itself included: its prompt and its own completion so far."""
    for tree in microbatch.trees:
        if tree.start <= at < tree.start + tree.num_tokens:
            break
    assert not tree.prefix, "these prompts have nothing in common"
    prompt = list(range(tree.start, tree.start + tree.prompt_length))
    if at < tree.start + tree.prompt_length:
        return [int(t) for t in microbatch.token_ids[tree.start : at + 1]]
    begin = tree.start + tree.prompt_length
    for fed in tree.completion_lengths:
        if at < begin + fed:
            break
        begin += fed
    return [int(microbatch.token_ids[i]) for i in [*prompt, *range(begin, at + 1)]]


@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, budget=st.integers(1, 60), share=st.booleans(), ranks=st.integers(1, 3))
def test_every_token_is_predicted_once_from_its_own_context(
    shapes: list[tuple[int, list[int]]], budget: int, share: bool, ranks: int
) -> None:
    samples = samples_of(shapes)
    microbatches = pack(samples, tokens_per_microbatch=budget, share_prompts=share, pair_cost=0.01, multiple_of=ranks)
    assert len(microbatches) % ranks == 0
    seen: list[int] = []
    for microbatch in microbatches:
        assert sum(tree.num_tokens for tree in microbatch.trees) == microbatch.num_tokens
        for n, predictor in enumerate(microbatch.predictors):
            sample = samples[microbatch.rows[microbatch.token_samples[n]]]
            t = int(microbatch.batch_tokens[n]) - sample.start
            expected = [*sample.prompt_token_ids.tolist(), *sample.token_ids[:t].tolist()]
            assert context_of(microbatch, int(predictor)) == expected
            assert microbatch.position_ids[predictor] == len(expected) - 1
            assert microbatch.targets[n] == sample.token_ids[t]
        seen += microbatch.batch_tokens.tolist()
        if len(microbatch.trees) > 1 or (microbatch.trees and len(microbatch.trees[0].completion_lengths) > 1):
            assert microbatch.num_tokens <= budget
    assert sorted(seen) == list(range(sum(sample.num_tokens for sample in samples)))


def test_a_prompt_is_fed_once_and_last_tokens_never() -> None:
    (microbatch,) = pack(samples_of([(10, [5, 3, 1])]), tokens_per_microbatch=100)
    assert microbatch.num_tokens == 10 + 4 + 2 + 0
    assert microbatch.position_ids.tolist() == [*range(10), 10, 11, 12, 13, 10, 11]
    assert microbatch.predictors.tolist() == [9, 10, 11, 12, 13, 9, 14, 15, 9]
    assert microbatch.token_samples.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2]


def test_costs_are_balanced() -> None:
    rng = np.random.default_rng(1)
    shapes = [(20, [int(n) for n in rng.lognormal(4, 0.8, 4).clip(1, 300)]) for _ in range(40)]
    microbatches = pack(samples_of(shapes), tokens_per_microbatch=3000, pair_cost=0.01)
    sizes = [microbatch.num_tokens for microbatch in microbatches]
    assert max(sizes) <= 1.2 * min(sizes)


def test_empty_completions_are_fed_to_nothing() -> None:
    assert pack(samples_of([(3, [0, 0])]), tokens_per_microbatch=10) == []


def test_unusable_groups_are_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="group 7: an empty prompt"):
        make_batch([make_group(rng, [1], [0], prompt_length=0, group_id=7)])


def test_error_verdicts_are_not_samples() -> None:
    rng = np.random.default_rng(0)
    batch = make_batch([make_group(rng, [2, 3, 4], [1, float("nan"), 0])])
    assert batch.lengths.tolist() == [2, 4]
    assert batch.rewards.tolist() == [1, 0]


def test_tokens_sampled_beside_older_keys_are_of_no_version() -> None:
    (group,) = [make_group(np.random.default_rng(0), [5, 2], [1, 0], version=3)]
    crossed = group.rollouts[0].completion
    spans = (VersionSpan(start=0, end=2, policy_version=3), VersionSpan(start=2, end=5, policy_version=4))
    rollouts = (replace(group.rollouts[0], completion=replace(crossed, version_spans=spans)), group.rollouts[1])
    groups = [replace(group, rollouts=rollouts)]
    assert make_batch(groups).token_versions.tolist() == [3, 3, 4, 4, 4, 3, 3], "keys computed anew, or none used"
    stale = make_batch(groups, stale_cache=True).token_versions.tolist()
    assert stale == [3, 3, MIXED, MIXED, MIXED, 3, 3]
