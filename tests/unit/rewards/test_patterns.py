"""Every regular expression of the rewards takes linear time, whatever a model writes.

A pattern is searched in strings made from itself: what it repeats, repeated, ending in what makes it fail. One that
looks slow on short strings is tried on strings ten times as long, where quadratic time is far past any bound.
"""

from __future__ import annotations

import re
import time

import pytest

from tests.regex_attacks import Found, attacks, patterns_of
from tests.source_tree import ROOT

SHORT, LONG = 2_000, 20_000
SUSPECT_S, BOUND_S = 0.001, 0.1
IN_CHILDREN = ("math/",)
"""Judged in children that are killed at their CPU limit, on answers of bounded length."""
OF_LONG_TEXTS = ("math/reading/extract", "math/reading/unboxed")
FOUND = patterns_of(ROOT / "rewards", "rayzero.rewards")


def is_bounded(found: Found) -> bool:
    return found.place.startswith(IN_CHILDREN) and not found.place.startswith(OF_LONG_TEXTS)


def seconds(found: Found, text: str) -> float:
    started = time.thread_time()
    found.run(text)
    return time.thread_time() - started


def slow_strings(patterns: list[Found], short: int, long: int) -> list[tuple[str, str, float]]:
    slow = []
    for found in patterns:
        for attack in attacks(found.pattern):
            if seconds(found, attack.of(short)) > SUSPECT_S and (taken := seconds(found, attack.of(long))) > BOUND_S:
                slow.append((found.place, f"{attack.prefix[:20]!r} {attack.pumped[:20]!r}", taken))
                break
    return slow


def test_no_pattern_takes_more_than_linear_time() -> None:
    assert len(FOUND) > 250
    assert not slow_strings([found for found in FOUND if not is_bounded(found)], SHORT, LONG)


def test_the_search_finds_a_quadratic_pattern() -> None:
    known = [("search", r"\s+$"), ("fullmatch", r"\d+\.?\d*")]
    quadratic = [Found("here", re.compile(pattern), call) for call, pattern in known]
    assert len(slow_strings(quadratic, SHORT, LONG)) == len(known)


@pytest.mark.long
def test_no_pattern_on_short_answers_outlasts_its_child() -> None:
    assert not slow_strings([found for found in FOUND if is_bounded(found)], 250, 1_000)
