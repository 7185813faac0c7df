"""Turns that stay in an episode's context and are not trained on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from rayzero.services.schema.messages import Completion


def without_turns(completion: Completion, masked: Collection[int]) -> Completion:
    """The completion with those turns, counted from 0 through all its branches, as context: not sampled, and their
    log-probabilities NaN, so that a leak is noticed."""
    if not masked:
        return completion
    number = len(completion.turns)
    branches = []
    for branch in completion.branches:
        turns = range(number, number + len(branch.completion.turns))
        own = {index - number for index in masked if index in turns}
        branches.append(replace(branch, completion=_without(branch.completion, own)))
        number = turns.stop
    return replace(_without(completion, set(masked)), branches=tuple(branches))


def _without(completion: Completion, masked: Collection[int]) -> Completion:
    turns = [turn for index, turn in enumerate(completion.turns) if index in masked]
    if not turns:
        return completion
    sampled = (
        np.ones(completion.num_tokens, np.bool_) if completion.is_sampled is None else completion.is_sampled.copy()
    )
    logprobs = completion.rollout_logprobs.copy()
    for turn in turns:
        sampled[turn.start : turn.end] = False
        logprobs[turn.start : turn.end] = np.nan
    kept = tuple(turn for turn in completion.turns if turn not in turns)
    return replace(completion, is_sampled=sampled, rollout_logprobs=logprobs, turns=kept)
