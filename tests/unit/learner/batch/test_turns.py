"""Which turn each token is of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rayzero.learner.batch.turns import turns_of
from rayzero.services.schema.episodes import Branch, Turn
from rayzero.services.schema.messages import Completion
from tests.unit.learner.episodes import a_path


def path(*runs: tuple[bool, int], rewards: tuple[float | None, ...] = ()) -> Completion:
    """Each sampled run is a turn, as far as rewards are given."""
    made, start, turns, given = a_path(np.random.default_rng(0), runs), 0, [], iter(rewards)
    for is_sampled, length in runs:
        if is_sampled and rewards:
            turns.append(Turn(start=start, end=start + length, finish_reason="stop", reward=next(given)))
        start += length
    return replace(made, turns=tuple(turns))


def test_tokens_are_counted_turn_by_turn_and_branch_by_branch() -> None:
    main = path((True, 2), (False, 3), (True, 1), rewards=(0.5, None))
    branch = Branch(parent=0, fork=4, completion=path((False, 1), (True, 3), rewards=(1.0,)))
    plain = path((True, 2))
    turns = turns_of([replace(main, branches=(branch,)), plain])
    np.testing.assert_array_equal(turns.rewards, [0.5, np.nan, 1.0, np.nan])
    assert turns.rows.tolist() == [0, 0, 0, 1]
    assert turns.tokens.tolist() == [0, 0, 1, 2, 2, 2, 3, 3]


def test_a_main_path_without_a_turn_adds_none() -> None:
    branch = Branch(parent=0, fork=1, completion=path((True, 2), rewards=(0.0,)))
    turns = turns_of([replace(path((False, 2)), branches=(branch,)), path()])
    assert turns.rows.tolist() == [0, 1] and turns.tokens.tolist() == [0, 0]
    assert not turns_of([]).tokens.size
