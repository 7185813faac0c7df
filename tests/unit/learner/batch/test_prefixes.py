"""What prompts have in common is laid once, in any order of the groups, and changes no gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rayzero.learner.batch import prefixes
from rayzero.learner.batch.batching import Microbatch, pack
from rayzero.learner.batch.prefixes import shared_prefixes
from rayzero.learner.batch.routing import UNKNOWN
from rayzero.learner.batch.samples import make_batch
from rayzero.services.schema.messages import Group
from tests.unit.learner.kit import beginning_alike, gradient, make_group, make_learner, some_groups, with_routing


def ids(*tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(tokens, dtype=np.int32)


def group_of(prompt: np.ndarray[tuple[int], np.dtype[np.int32]], lengths: list[int], number: int) -> Group:
    made = make_group(np.random.default_rng(number), lengths, [0.0] * len(lengths), group_id=number)
    return replace(made, prompt_token_ids=prompt)


def packed(*groups: Group) -> Microbatch:
    (microbatch,) = pack(make_batch(list(groups)).samples, tokens_per_microbatch=1000)
    return microbatch


def test_each_prompt_follows_the_one_with_which_it_shares_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MIN_SHARED", 2)
    prompts = [ids(5, 300, 9, 1), ids(7, 1), ids(5, 300, 9, 1), ids(5, 300), ids(5, 300, 8), ids(5, 2, 2)]
    # A word's number is compared as a number: 300 is not "before" 2. Equal ones keep a last token each.
    assert shared_prefixes(prompts) == [(5, 0), (3, 0), (4, 2), (0, 2), (2, 3), (1, 0)]
    assert shared_prefixes([]) == []


def test_where_nothing_is_worth_sharing_the_order_is_kept() -> None:
    long = np.arange(20, dtype=np.int32)
    assert shared_prefixes([long[7:], long, long[:7]]) == [(0, 0), (1, 0), (2, 0)], "seven tokens are not enough"
    assert shared_prefixes([long[8:], long, long[:8]]) == [(2, 0), (1, 8), (0, 0)]


def test_the_common_tokens_lie_with_the_first_prompt() -> None:
    common = list(range(20, 30))
    microbatch = packed(group_of(ids(*common, 2, 2), [3, 1], 0), group_of(ids(*common, 1), [2], 1))
    # The second group's prompt sorts first: 11 of it, 1 fed; then 2 of the other, and 2 + 0 of its completions.
    assert microbatch.rows.tolist() == [2, 0, 1]
    assert microbatch.token_ids[:11].tolist() == [*common, 1] and microbatch.token_ids[12:14].tolist() == [2, 2]
    assert microbatch.position_ids.tolist() == [*range(11), 11, 10, 11, 12, 13]
    assert microbatch.predictors.tolist() == [10, 11, 13, 14, 15, 13]
    first, second = microbatch.trees
    assert (first.prefix, first.path_length) == ((), 11)
    assert (second.start, second.prompt_length, second.prefix, second.path_length) == (12, 2, ((0, 10),), 12)
    assert second.completions[0].context == ((0, 10), (12, 2))


def test_without_shared_prompts_nothing_is_shared() -> None:
    prompt = np.arange(30, dtype=np.int32)
    samples = make_batch([group_of(prompt, [2, 2], 0), group_of(prompt, [2], 1)]).samples
    (microbatch,) = pack(samples, tokens_per_microbatch=1000, share_prompts=False)
    assert microbatch.num_tokens == 3 * 31
    (shared,) = pack(samples, tokens_per_microbatch=1000)
    assert shared.num_tokens == 30 + 1 + 3, "a prompt that two groups have is fed once, but for its last token"


def test_recorded_experts_lie_where_the_tokens_do() -> None:
    rng = np.random.default_rng(0)
    prompt = np.arange(12, dtype=np.int32)
    one = with_routing(rng, group_of(prompt, [3], 0))
    other = with_routing(rng, group_of(np.concatenate([prompt[:9], ids(50, 51)]), [4], 1))
    microbatch = packed(one, other)
    laid = microbatch.routed_experts
    assert laid is not None and len(laid) == microbatch.num_tokens == 12 + 2 + 2 + 3
    assert one.prompt_routed_experts is not None and other.prompt_routed_experts is not None
    np.testing.assert_array_equal(laid[:12], one.prompt_routed_experts)
    np.testing.assert_array_equal(laid[14:16], other.prompt_routed_experts[9:])
    assert (laid != UNKNOWN).all()


@pytest.mark.parametrize("seed", range(3))
def test_sharing_changes_no_gradient(tiny_model: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MIN_SHARED", 1)
    rng = np.random.default_rng(seed)
    groups = [*some_groups(seed), *(replace(group, group_id=7 + n) for n, group in enumerate(some_groups(seed + 9)))]
    groups = beginning_alike(rng, groups)

    def of(share: bool, tokens: int) -> torch.Tensor:
        compute = {"share_prompts": share, "tokens_per_microbatch": tokens}
        return gradient(make_learner(tiny_model, compute=compute), groups)

    expected = of(False, 1000)
    for tokens in (1000, 40):
        torch.testing.assert_close(of(True, tokens), expected, rtol=1e-4, atol=1e-6)
