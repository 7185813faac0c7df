"""Length and repetition: numbers worked out by hand, and a slow reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.rewards.base import Context, Score, failed, scored
from rayzero.rewards.kinds.length import (
    CosineLengthReward,
    OverlongReward,
    RepetitionReward,
    cosine_length,
    num_tokens,
    overlong_penalty,
    repeated_share,
    words,
)
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import (
    CosineLengthComponent,
    OverlongComponent,
    RepetitionComponent,
)
from rayzero.services.schema.messages import VerdictStatus
from tests.unit.rewards.cases import case

COSINE = CosineLengthComponent(
    of="accuracy", max_tokens=100, correct_short=1.0, correct_long=0.5, wrong_short=-1.0, wrong_long=-0.5, exceeded=-2.0
)


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20479, -4095 / 4096), (20480, -1.0), (20481, -1.0)],
)
def test_overlong_penalty_of_the_paper(length: int, penalty: float) -> None:
    assert overlong_penalty(length, 20480, 4096) == penalty


def test_overlong_reward_is_full_without_penalty() -> None:
    reward = OverlongReward(OverlongComponent(max_tokens=4, margin_tokens=2))
    assert [reward.judge(case("", num_tokens=length)).value for length in range(6)] == [0, 0, 0, -0.5, -1, -1]
    assert reward.judge(case("", num_tokens=2)).status is VerdictStatus.CORRECT
    assert reward.judge(case("", num_tokens=3)).status is VerdictStatus.WRONG
    with pytest.raises(ValueError, match="must not exceed max_tokens"):
        OverlongComponent(max_tokens=4, margin_tokens=5)


@pytest.mark.parametrize(
    ("length", "correct", "value"),
    [
        (0, True, 1.0),
        (50, True, 0.75),
        (25, True, 0.5 + 0.25 * (1 + math.sqrt(0.5))),
        (0, False, -1.0),
        (50, False, -0.75),
        (75, False, -0.5 - 0.25 * (1 - math.sqrt(0.5))),
        (100, True, -2.0),
        (101, False, -2.0),
    ],
)
def test_cosine_by_hand(length: int, correct: bool, value: float) -> None:
    assert cosine_length(length, correct, COSINE) == pytest.approx(value)


@given(st.integers(0, 98), st.booleans())
def test_cosine_falls_when_right_and_rises_when_wrong(length: int, correct: bool) -> None:
    step = cosine_length(length + 1, correct, COSINE) - cosine_length(length, correct, COSINE)
    assert step < 0 if correct else step > 0


async def test_cosine_follows_the_component_it_is_built_on() -> None:
    earlier: dict[str, Sequence[Score]] = {
        "accuracy": [scored(1.0), scored(0.0), failed(ErrorCause.DIED, "gone"), scored(None)]
    }
    cases = [case("", num_tokens=0)] * 4
    scores = await CosineLengthReward(COSINE).score(cases, Context(earlier=earlier))
    assert [score.value for score in scores[:2]] == [1.0, -1.0]
    assert [score.status for score in scores[:2]] == [VerdictStatus.CORRECT, VerdictStatus.WRONG]
    assert scores[2].is_error and scores[2].cause == "died"
    assert scores[3].value is None


@pytest.mark.parametrize(
    ("text", "size", "share"),
    [
        ("", 2, 0.0),
        ("a b", 3, 0.0),
        ("a b c", 3, 0.0),
        ("a b a b a b", 2, 1 - 2 / 5),
        ("a a a a", 1, 0.75),
        ("A a", 1, 0.5),
        ("好好好", 1, 2 / 3),
    ],
)
def test_repeated_share_by_hand(text: str, size: int, share: float) -> None:
    assert repeated_share(words(text), size) == pytest.approx(share)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 6))
def test_repeated_share_agrees_with_a_slow_reference(items: list[str], size: int) -> None:
    windows = [tuple(items[start : start + size]) for start in range(len(items) - size + 1)]
    expected = 1 - len(set(windows)) / len(windows) if windows else 0.0
    assert repeated_share(items, size) == pytest.approx(expected)


def test_repetition_reward_is_a_penalty() -> None:
    reward = RepetitionReward(RepetitionComponent(ngram_size=2, max_penalty=0.5))
    loop = reward.judge(case("so " * 1001))
    assert loop.value == pytest.approx(-0.5 * 0.999)
    assert reward.judge(case("each word once")).status is VerdictStatus.CORRECT
    assert reward.judge(case("each word once")).value == 0.0


def test_words_stand_in_where_no_tokens_are_known() -> None:
    assert num_tokens(case("three short words")) == 3
    assert num_tokens(case("三个 words")) == 3
    assert num_tokens(case("three short words", num_tokens=9)) == 9
