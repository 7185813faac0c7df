"""Episodes of a group that began differently have one prompt: what differs is context of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rayzero.services.loop.common_prompt import common_routing, with_common_prompt
from rayzero.services.schema.episodes import EpisodeRecord, Turn
from tests.fakes import make_completion


def record(prompt: list[int]) -> EpisodeRecord:
    """One that says the same after any prompt."""
    completion = replace(make_completion(version=4), turns=(Turn(start=0, end=3, finish_reason="stop"),))
    return EpisodeRecord(prompt_token_ids=np.asarray(prompt, dtype=np.int32), prompt_text="", completion=completion)


def test_equal_prompts_move_nothing() -> None:
    records = [record([5, 6, 7]), record([5, 6, 7])]
    prompt, completions = with_common_prompt(records)
    assert prompt.tolist() == [5, 6, 7]
    assert all(a is b.completion for a, b in zip(completions, records, strict=True))


def test_what_differs_is_context_of_its_own_episode() -> None:
    prompt, (first, second) = with_common_prompt([record([5, 6, 7]), record([5, 8])])
    assert prompt.tolist() == [5]
    assert first.token_ids.tolist() == [6, 7, 0, 1, 2] and second.token_ids.tolist() == [8, 0, 1, 2]
    assert first.is_sampled is not None and first.is_sampled.tolist() == [False, False, True, True, True]
    assert np.isnan(first.rollout_logprobs[:2]).all() and not np.isnan(first.rollout_logprobs[2:]).any()
    assert [(span.start, span.end) for span in first.version_spans] == [(0, 5)]
    assert [(turn.start, turn.end) for turn in second.turns] == [(1, 4)]


def routed(prompt: list[int], known: int) -> EpisodeRecord:
    """One whose prompt's first `known` tokens and completion have rows that tell their token."""
    made = record(prompt)
    own = made.completion.token_ids[:-1].astype(np.uint8)[:, None, None]
    rows = made.prompt_token_ids.astype(np.uint8)[:known, None, None]
    return replace(made, completion=replace(made.completion, routed_experts=own), prompt_routed_experts=rows)


def test_routing_moves_with_its_tokens() -> None:
    records = [routed([5, 6, 7], 3), routed([5, 8], 2)]
    prompt, (first, second) = with_common_prompt(records)
    assert first.routed_experts is not None and first.routed_experts.ravel().tolist() == [6, 7, 0, 1]
    assert second.routed_experts is not None and second.routed_experts.ravel().tolist() == [8, 0, 1]
    common = common_routing(records, len(prompt))
    assert common is not None and common.ravel().tolist() == [5]


def test_rows_after_tokens_without_any_are_left_out() -> None:
    _, (first, second) = with_common_prompt([routed([5, 6, 7], 2), record([5, 8])])
    assert first.routed_experts is not None and first.routed_experts.ravel().tolist() == [6]
    assert second.routed_experts is None
    assert common_routing([record([5, 8])], 1) is None
