"""Figures of a batch's episodes, from its groups alone; none where there are no episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rayzero.services.loop.episode_figures import calls_of, episode_figures, turns_of
from rayzero.services.observe.figures import UPDATE_FIGURES, undeclared
from rayzero.services.schema.episodes import Branch, EpisodeEnd, EpisodeOutcome, Turn
from rayzero.services.schema.messages import Completion, Group
from tests.fakes import make_completion, make_group


def episode(end: EpisodeEnd, num_turns: int, branches: int = 0, calls: int = 0, failed: int = 0) -> Completion:
    """One with so many turns of a second each, and a token that the environment said."""
    turns = tuple(Turn(start=0, end=1, finish_reason="stop", engine_s=1.0) for _ in range(num_turns))
    sampled = np.asarray([True, False, True])
    outcome = EpisodeOutcome(
        end=end, environment_s=(0.5,) * num_turns, metrics={"tool_calls": calls, "tool_failures": failed}
    )
    base = replace(make_completion(), turns=turns, is_sampled=sampled, end=end, outcome=outcome)
    branch = Branch(parent=0, fork=1, completion=replace(make_completion(), turns=turns[:1]), reason="rewritten")
    return replace(base, branches=(branch,) * branches)


def of(*episodes: Completion) -> list[Group]:
    """A batch of one group."""
    group = make_group(0, rewards=(0.0,) * len(episodes))
    pairs = zip(group.rollouts, episodes, strict=True)
    return [replace(group, rollouts=tuple(replace(rollout, completion=made) for rollout, made in pairs))]


def test_a_batch_of_episodes() -> None:
    figures = episode_figures(
        of(
            episode(EpisodeEnd.ANSWERED, 2, calls=4, failed=1),
            episode(EpisodeEnd.MAX_TURNS, 3, branches=1),
        )
    )
    assert figures == {
        "episode_turns_mean": 3.0,
        "episode_observed_tokens_mean": 1.0,
        "episode_engine_s_mean": 3.0,
        "episode_environment_s_mean": 1.25,
        "episode_forks_mean": 0.5,
        "tool_calls_mean": 2.0,
        "tool_failure_share": 0.25,
        "episode_end/answered": 0.5,
        "episode_end/max_turns": 0.5,
    }
    assert not undeclared(figures, UPDATE_FIGURES)


def test_single_turns_have_none() -> None:
    assert episode_figures([make_group(0)]) == {}
    assert list(turns_of(make_completion())) == [] and calls_of(make_completion()) == (0, 0)
