"""Episodes as nodes: every sampled token trained once from exactly its own path, whatever is shared, cut or split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayzero.learner.batch import prefixes
from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.samples import MIXED, make_batch
from rayzero.services.schema.episodes import Branch, EpisodeEnd
from rayzero.services.schema.messages import Completion, Group, VersionSpan
from tests.unit.learner.episodes import a_path, episode_group, sampled_rows
from tests.unit.learner.kit import beginning_alike

Runs = list[tuple[bool, int]]
S, O = True, False  # noqa: E741


def seen_from(microbatch: Microbatch) -> list[list[int]]:
    """Of every position: the tokens that it may see, itself included, in order."""
    seen: list[list[int]] = [[] for _ in range(microbatch.num_tokens)]
    for tree in microbatch.trees:
        for segment in (tree.prompt, *tree.completions):
            before = [at for start, length in segment.context for at in range(start, start + length)]
            for at in range(segment.start, segment.start + segment.length):
                before.append(at)
                assert not seen[at], "no token lies in two segments"
                seen[at] = [int(microbatch.token_ids[place]) for place in before]
    return seen


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(1, 80), share=st.booleans(), ranks=st.integers(1, 3))
def test_every_sampled_token_is_trained_once_from_its_own_path(seed: int, budget: int, share: bool, ranks: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [
        episode_group(rng, [0.0, 1.0, 0.5], group_id=number, prompt_length=int(rng.integers(1, 9)))
        for number in range(int(rng.integers(1, 4)))
    ]
    check_paths(beginning_alike(rng, groups) if seed % 2 else groups, budget, share, ranks)


def check_paths(groups: list[Group], budget: int, share: bool, ranks: int) -> None:
    batch = make_batch(groups)
    expected = [
        (tokens[:place].tolist(), int(tokens[place])) for tokens, places in sampled_rows(groups) for place in places
    ]
    assert batch.num_tokens == len(expected) == sum(group.num_tokens for group in groups)
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "MIN_SHARED", 1)
        microbatches = pack(
            batch.samples, tokens_per_microbatch=budget, share_prompts=share, pair_cost=0.01, multiple_of=ranks
        )
    for microbatch in microbatches:
        assert sum(tree.num_tokens for tree in microbatch.trees) == microbatch.num_tokens
        visible = seen_from(microbatch)
        for number, predictor in enumerate(microbatch.predictors):
            before, target = expected[microbatch.batch_tokens[number]]
            assert visible[predictor] == before
            assert microbatch.position_ids[predictor] == len(before) - 1
            assert microbatch.targets[number] == target
            row = microbatch.rows[microbatch.token_samples[number]]
            assert row == batch.token_rows[microbatch.batch_tokens[number]]
        whole = set(np.flatnonzero(np.isin(batch.token_rows, microbatch.rows))) == set(microbatch.batch_tokens)
        assert microbatch.partial is not whole
        seen += microbatch.batch_tokens.tolist()
    assert sorted(seen) == list(range(batch.num_tokens))


def fed(groups: list[Group], budget: int = 10**6) -> list[Microbatch]:
    return pack(make_batch(groups).samples, tokens_per_microbatch=budget)


def group_of(*episodes: Completion, prompt_length: int = 5) -> Group:
    rng = np.random.default_rng(0)
    return episode_group(rng, [0.0] * len(episodes), episodes=episodes, prompt_length=prompt_length)


def with_branches(runs: Runs, *branches: tuple[int, int, Runs]) -> Completion:
    rng = np.random.default_rng(1)
    made = tuple(Branch(parent=p, fork=f, completion=a_path(rng, own)) for p, f, own in branches)
    return replace(a_path(rng, runs), branches=made)


def test_what_is_shared_is_fed_once_and_what_leads_nowhere_never() -> None:
    # 5 of the prompt; 3 sampled, 4 observed, 2 sampled, 6 observed at the end; a branch after the first observation.
    episode = with_branches([(S, 3), (O, 4), (S, 2), (O, 6)], (0, 5 + 7, [(S, 3)]))
    (microbatch,) = fed([group_of(episode, episode)])
    assert microbatch.num_tokens == 5 + 2 * (8 + 2)
    assert microbatch.trees[0].completion_lengths == (8, 2, 8, 2)
    assert microbatch.trees[0].forks == ((0, 5), (1, 12), (0, 5), (3, 12))
    assert microbatch.position_ids[5:15].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 12, 13]
    assert microbatch.predictors[:8].tolist() == [4, 5, 6, 11, 12, 11, 13, 14]


def test_a_branch_that_trains_nothing_is_not_fed() -> None:
    episode = with_branches([(S, 3)], (0, 8, [(O, 4)]), (0, 6, []), (1, 12, [(O, 2)]))
    (microbatch,) = fed([group_of(episode)])
    assert microbatch.num_tokens == 5 + 2
    assert microbatch.trees[0].forks == (), "what is left is a plain completion"


def test_a_fork_within_the_prompt_feeds_no_more_of_it_than_is_seen() -> None:
    episode = with_branches([(O, 3)], (0, 2, [(S, 4)]), (1, 4, [(S, 1)]))
    (microbatch,) = fed([group_of(episode)])
    assert microbatch.num_tokens == 2 + 3
    assert microbatch.position_ids.tolist() == [0, 1, 2, 3, 4]
    assert microbatch.predictors.tolist() == [1, 2, 3, 4, 3]


def test_an_episode_without_forks_lies_as_a_completion_does() -> None:
    (microbatch,) = fed([group_of(with_branches([(S, 3), (O, 4), (S, 2)]))])
    assert microbatch.trees[0].forks == ()
    assert microbatch.num_tokens == 5 + 8
    assert microbatch.predictors.tolist() == [4, 5, 6, 11, 12]


def test_a_tree_over_the_budget_is_split_with_what_its_parts_share_laid_again() -> None:
    branches = [(0, 15, [(S, 8)]) for _ in range(4)]
    episode = with_branches([(S, 10), (O, 1)], *branches)  # 5 + 10 shared, 7 fed of each branch
    microbatches = fed([group_of(episode)], budget=32)
    assert all(microbatch.partial for microbatch in microbatches)
    assert [microbatch.num_tokens for microbatch in microbatches] == [29, 29]
    whole = fed([group_of(episode)], budget=43)
    assert [(microbatch.num_tokens, microbatch.partial) for microbatch in whole] == [(43, False)]


def test_a_path_over_the_budget_takes_what_fits_beside_it() -> None:
    episode = with_branches([(S, 40)], (0, 45, [(S, 3)]), (0, 20, [(S, 3)]))
    assert len(fed([group_of(episode)], budget=10)) <= 2, "not one part a node, each with 40 tokens laid again"


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (with_branches([(S, 3)], (0, 0, [(S, 1)])), "group 0: branch 1 forks after 0 tokens of a path that has 8"),
        (with_branches([(S, 3)], (0, 9, [(S, 1)])), "group 0: branch 1 forks after 9 tokens of a path that has 8"),
        (with_branches([(S, 3)], (1, 4, [(S, 1)])), "group 0: branch 1 has branch 1 for a parent"),
        (with_branches([(S, 3)], (-1, 4, [(S, 1)])), "group 0: branch 1 has branch -1 for a parent"),
        (
            replace(
                with_branches([(S, 3)]),
                branches=(Branch(parent=0, fork=6, completion=with_branches([(S, 2)], (0, 6, [(S, 1)]))),),
            ),
            "group 0: branch 1 has branches of its own",
        ),
    ],
)
def test_a_branch_that_does_not_fit_is_refused(episode: Completion, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_batch([group_of(episode)])


def test_a_leak_between_observed_and_sampled_is_noticed() -> None:
    good = with_branches([(S, 2), (O, 3), (S, 1)], (0, 7, [(S, 1), (O, 1)]))

    def refused(message: str, **changes: Any) -> None:
        for episode in (replace(good, **changes), replace(good, branches=_changed(good, changes))):
            with pytest.raises(ValueError, match=message):
                make_batch([group_of(episode)])

    def _changed(episode: Completion, changes: Any) -> tuple[Branch, ...]:
        broken = replace(with_branches([(S, 2), (O, 3), (S, 1)]), **changes)
        return (*episode.branches, Branch(parent=0, fork=5, completion=broken))

    assert good.is_sampled is not None
    shifted = np.roll(good.is_sampled, 1)
    refused("group 0: token 2 of a path is marked as sampled and has no log-probability", is_sampled=shifted)
    fewer = good.is_sampled.copy()
    fewer[0] = False
    refused("group 0: token 0 of a path has a log-probability and is not marked as sampled", is_sampled=fewer)
    refused("group 0: 6 tokens, but 5 marks", is_sampled=good.is_sampled[:5])
    refused("group 0: 6 tokens, but 5 log-probabilities", rollout_logprobs=good.rollout_logprobs[:5])
    assert np.isfinite(make_batch([group_of(good)]).rollout_logprobs).all()


def test_versions_and_lengths_are_those_of_sampled_tokens() -> None:
    branch = replace(
        a_path(np.random.default_rng(0), [(O, 1), (S, 2)]),
        version_spans=(VersionSpan(start=1, end=3, policy_version=5),),
    )
    main = with_branches([(S, 2), (O, 2), (S, 3)])
    spans = (VersionSpan(start=0, end=2, policy_version=3), VersionSpan(start=4, end=7, policy_version=4))
    episode = replace(main, version_spans=spans, branches=(Branch(parent=0, fork=7, completion=branch),))
    assert (episode.oldest_version, episode.newest_version, episode.num_sampled) == (3, 5, 7)
    group = group_of(episode)
    batch = make_batch([group])
    assert batch.token_versions.tolist() == [3, 3, 4, 4, 4, 5, 5]
    assert make_batch([group], stale_cache=True).token_versions.tolist() == [3, 3, *[MIXED] * 5]
    assert batch.lengths.tolist() == [7] and group.num_tokens == 7
    out_of_room = replace(episode, end=EpisodeEnd.CONTEXT)
    assert make_batch([group_of(episode, out_of_room)]).truncated.tolist() == [False, True]
