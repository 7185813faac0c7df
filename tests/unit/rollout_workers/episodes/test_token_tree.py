"""The record of what was fed: paths, forks, spans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rayzero.rollout_workers.episodes.token_tree import SampledTurn, TokenTree, common_prefix
from rayzero.services.schema.errors import PromptRefused
from rayzero.services.schema.messages import Completion, VersionSpan
from tests.episode_models import check_shape


def ids(*tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.asarray(tokens, dtype=np.int32)


def said(*tokens: int, version: int = 0, is_over: bool = False) -> SampledTurn:
    completion = Completion(
        text="",
        token_ids=ids(*tokens),
        rollout_logprobs=np.full(len(tokens), -1.0, dtype=np.float32),
        version_spans=(VersionSpan(start=0, end=len(tokens), policy_version=version),),
        finish_reason="length" if is_over else "stop",
    )
    return SampledTurn(completion=completion, is_over=is_over)


def test_what_continues_is_appended_and_what_differs_leaves_where_it_does() -> None:
    tree = TokenTree(ids(1, 2), 0)
    assert tree.record(ids(1, 2), said(3, 4), "") == (0, 4)
    assert tree.record(ids(1, 2, 3, 4, 5), said(6, version=1), "") == (0, 6)
    assert tree.record(ids(1, 2, 3, 4, 7), said(8), "rewritten") == (1, 6)
    assert tree.record(ids(1, 2, 3, 4, 7, 8, 9), said(10), "") == (1, 8)
    completion = tree.completion("last")
    assert completion.token_ids.tolist() == [3, 4, 5, 6] and completion.text == "last"
    assert [(span.start, span.end, span.policy_version) for span in completion.version_spans] == [(0, 2, 0), (2, 4, 1)]
    (branch,) = completion.branches
    assert (branch.parent, branch.fork, branch.reason) == (0, 4, "rewritten")
    assert branch.completion.token_ids.tolist() == [7, 8, 9, 10]
    assert tree.num_tokens == 8
    check_shape(completion)
    check_shape(branch.completion)


def test_nothing_follows_a_turn_that_was_cut_off() -> None:
    tree = TokenTree(ids(1), 0)
    tree.record(ids(1), said(2, is_over=True), "")
    tree.record(ids(1, 2, 3), said(4), "cut_off")
    assert [branch.fork for branch in tree.completion("").branches] == [2]


def test_a_context_without_a_token_in_common_is_refused() -> None:
    tree = TokenTree(ids(1, 2), 0)
    tree.check(ids(1, 9))
    for wrong in (ids(), ids(2)):
        with pytest.raises(PromptRefused):
            tree.check(wrong)


def test_common_prefix_counts_equal_tokens() -> None:
    assert [common_prefix(ids(1, 2, 3), other) for other in (ids(), ids(2), ids(1, 2), ids(1, 2, 4))] == [0, 0, 2, 2]


def fed_and_said(tree: TokenTree, fed: tuple[int, ...], *tokens: int, is_over: bool = False, salt: int = 0) -> None:
    """A turn whose rows tell the token and when it was computed; its last token was fed to no engine yet."""
    turn = said(*tokens, is_over=is_over)
    rows = ids(*fed, *tokens)[:-1, None, None].astype(np.uint8) + np.uint8(salt)
    completion = replace(turn.completion, routed_experts=rows)
    tree.record(ids(*fed), replace(turn, completion=completion), "")


def known(rows: Any) -> list[int]:
    return [] if rows is None else rows.ravel().tolist()


def test_each_token_keeps_the_routing_of_when_it_was_first_fed() -> None:
    tree = TokenTree(ids(1, 2), 0)
    fed_and_said(tree, (1, 2), 3, 4)
    assert known(tree.completion("").routed_experts) == [3], "the last token was fed to no engine yet"
    fed_and_said(tree, (1, 2, 3, 4, 5), 6, 7, salt=100)
    assert known(tree.completion("").routed_experts) == [3, 104, 105, 106]
    assert known(tree.prompt_routed_experts) == [1, 2]


def test_a_branch_has_its_own_rows_and_completes_those_of_what_it_leaves() -> None:
    tree = TokenTree(ids(1, 2), 0)
    fed_and_said(tree, (1, 2), 3, 4, is_over=True)
    fed_and_said(tree, (1, 2, 3, 4, 5), 6, 7, salt=100)
    fed_and_said(tree, (1, 9), 8, 7, salt=200)
    completion = tree.completion("")
    assert known(completion.routed_experts) == [3, 104], "the cut-off turn's last token was fed by the branch"
    assert [known(branch.completion.routed_experts) for branch in completion.branches] == [[105, 106], [209, 208]]
    assert known(tree.prompt_routed_experts) == [1, 2]


def test_without_records_there_are_no_rows() -> None:
    tree = TokenTree(ids(1, 2), 0)
    tree.record(ids(1, 2), said(3, 4), "")
    assert tree.completion("").routed_experts is None and tree.prompt_routed_experts is None
