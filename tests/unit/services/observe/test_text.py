"""How times, sizes, counts and long texts are shown."""

from __future__ import annotations

import pytest

from rayzero.services.observe.text import (
    as_clock,
    as_count,
    as_figure,
    as_rough_time,
    as_size,
    shortened,
    with_interval,
)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (as_clock(5.9), "0:05"),
        (as_clock(75), "1:15"),
        (as_clock(3600 + 62), "1:01:02"),
        (as_rough_time(3), "1 min"),
        (as_rough_time(5400), "1.5 h"),
        (as_size(512), "512 B"),
        (as_size(1536), "2 KiB"),
        (as_size(3 * 2**30), "3.0 GiB"),
        (as_count(999), "999"),
        (as_count(1_540_000), "1.54 M"),
        (as_count(2.5e12), "2.5e+03 G"),
        (as_figure(0.12345), "0.123"),
        (as_figure(1.5, ".0%"), "150%"),
        (as_figure(None), "–"),
        (shortened("  abc \n", 3), "abc"),
        (shortened("abcd", 3), "ab…"),
    ],
)
def test_one_way_each(shown: str, text: str) -> None:
    assert shown == text


def test_an_interval_is_half_of_95_per_cent() -> None:
    assert with_interval(0.824, 0.046, ".1%") == "82.4% ± 9.0%"
    assert with_interval(0.5, None, ".1%") == with_interval(0.5, float("nan"), ".1%") == "50.0%"
