"""The figures of a batch, each computed once and under one name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from rayzero.services.loop.batch_metrics import BatchFigures
from rayzero.services.schema.config.cluster import ClusterSettings
from rayzero.services.schema.episodes import EpisodeEnd
from rayzero.services.schema.messages import EQUAL_WITHIN, VerdictStatus
from tests.fakes import make_group, make_recipe
from tests.unit.services.loop.kit import make_episode

NAN = float("nan")


def about(value: float) -> Any:
    """Stands where a dataclass wants a number."""
    return pytest.approx(value)


def test_errors_are_counted_and_nothing_else_is_made_of_them() -> None:
    figures = BatchFigures.of([make_group(0, rewards=(1.0, 0.0)), make_group(1, rewards=(NAN, 1.0))])
    assert figures == BatchFigures(
        samples=3,
        verdict_errors=1,
        reward_mean=about(2 / 3),
        reward_std=about(math.sqrt(2) / 3),
        rewards={"accuracy": about(2 / 3)},
        train_accuracy=about(2 / 3),
        correct_share=about(2 / 3),
        uniform_group_share=0.5,
        completion_tokens=9,
        completion_tokens_mean=3.0,
        completion_tokens_max=3.0,
        truncated_share=0.0,
        trained_tokens=9 + 3 * 4,
    )


def test_accurate_and_correct_are_two_things() -> None:
    """An answer may be right where another component, the format say, keeps the verdict from being full."""
    group = make_group(0, rewards=(0.0, 0.0))
    first, second = group.rollouts
    verdict = dataclasses.replace(first.verdict, reward=0.5, components={"accuracy": 1.0, "format": 0.0})
    assert verdict.status is VerdictStatus.WRONG
    group = dataclasses.replace(group, rollouts=(dataclasses.replace(first, verdict=verdict), second))
    row = BatchFigures.of([group]).row()
    assert (row["train_accuracy"], row["correct_share"]) == (0.5, 0.0)
    assert (row["reward/accuracy"], row["reward/format"]) == (0.5, 0.0)
    assert not row.keys() & {"accuracy", "num_errors", "zero_variance_share", "rewards"}


def test_a_batch_without_a_verdict_has_no_means() -> None:
    row = BatchFigures.of([make_group(0, rewards=(NAN, NAN))]).row()
    assert (row["samples"], row["verdict_errors"], row["trained_tokens"], row["uniform_group_share"]) == (0, 2, 0, 1)
    assert all(math.isnan(row[name]) for name in ("reward_mean", "reward_std", "train_accuracy", "truncated_share"))


@pytest.mark.parametrize(
    ("rewards", "uniform"),
    [
        ((0.1 + 0.2, 0.3), True),
        ((0.0, 2 * EQUAL_WITHIN), False),
        ((1.0, NAN), True),
        ((NAN, NAN), True),
        ((0.0, NAN, 1.0), False),
    ],
)
def test_rewards_that_differ_by_rounding_are_equal(rewards: tuple[float, ...], uniform: bool) -> None:
    group = make_group(0, rewards=rewards)
    assert group.is_uniform is uniform
    assert [rollout.verdict.reward for rollout in group.judged] == [reward for reward in rewards if reward == reward]


def test_what_settings_mean_is_asked_of_them() -> None:
    assert make_recipe().training.is_synchronous and not make_recipe(max_staleness=1).training.is_synchronous
    modes = {mode: ClusterSettings(colocate=mode) for mode in ("no", "shared", "sleep")}
    assert [modes[mode].shares_gpu for mode in modes] == [False, True, True]
    assert [modes[mode].takes_turns for mode in modes] == [False, False, True]


def test_an_episodes_length_is_what_was_sampled_in_all_its_turns_and_branches() -> None:
    group = make_group(0, rewards=(1.0, 0.0))
    episode = make_episode("SSOOS", (0, 6, "OSS"), end=EpisodeEnd.CONTEXT, versions=(4, 2))
    first, second = group.rollouts
    group = dataclasses.replace(group, rollouts=(dataclasses.replace(first, completion=episode), second))
    figures = BatchFigures.of([group])
    assert (figures.completion_tokens, figures.completion_tokens_max) == (5 + 3, 5)
    assert figures.trained_tokens == 5 + 3 + 3 + 2 * 4
    assert figures.truncated_share == 0.5
    assert (group.num_tokens, group.oldest_version) == (5 + 3, min(2, second.completion.oldest_version))
