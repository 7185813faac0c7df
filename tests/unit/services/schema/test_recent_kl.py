"""Comparisons of a few tokens each, put together."""

from __future__ import annotations

import math

import pytest

from rayzero.services.schema.recent_kl import MOST, RecentKl


def test_the_newest_that_have_enough_tokens_are_meant_hand_computed() -> None:
    recent = RecentKl()
    assert recent.add(0.3, 40, 100) == (0.3, 40)
    assert recent.add(0.1, 40, 100) == pytest.approx((0.2, 80))
    assert recent.add(0.4, 40, 100) == pytest.approx(((0.3 + 0.1 + 0.4) / 3, 120))
    assert recent.add(0.5, 70, 100) == pytest.approx(((0.5 * 70 + 0.4 * 40) / 110, 110)), "the two newest are enough"
    assert recent.add(0.2, 100, 100) == (0.2, 100), "one that is enough alone is taken alone"


def test_what_is_no_number_is_told_and_not_remembered() -> None:
    recent = RecentKl()
    recent.add(0.1, 50, 100)
    assert math.isnan(recent.add(math.nan, 50, 100)[0])
    assert recent.add(0.0, 0, 100) == (0.0, 0)
    assert recent.add(0.3, 50, 100) == pytest.approx((0.2, 100))


def test_it_does_not_look_back_for_ever() -> None:
    recent = RecentKl()
    recent.add(1.0, 1, 10**6)
    found = [recent.add(0.0, 1, 10**6) for _ in range(MOST)]
    assert found[-2][0] > 0 and found[-1] == (0.0, MOST)
