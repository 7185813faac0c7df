"""Episodes of a group that began differently have one prompt: what differs is context of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rayzero.services.loop.common_prompt import with_common_prompt
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
