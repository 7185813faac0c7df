"""Times and dates: what is read as one, what can be read in two ways, and which are the same."""

from __future__ import annotations

import pytest

from rayzero.rewards.math.values.clock import Clock, Date, read_clock, read_colon, read_date, same_clock


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("3 pm", Clock(15, 0, 0, "p")),
        ("3:05 p.m.", Clock(15, 5, 0, "p")),
        ("12:00:01 AM", Clock(0, 0, 1, "a")),
        ("12 pm", Clock(12, 0, 0, "p")),
        ("7 am in the morning", Clock(7, 0, 0, "a")),
        ("4 o'clock", Clock(4, 0, 0, "")),
        ("noon", Clock(12, 0, 0, "p")),
        ("midnight", Clock(0, 0, 0, "a")),
        ("下午3点半", Clock(15, 30, 0, "p")),
        ("8点一刻", Clock(8, 15, 0, "")),
        ("上午10时20分", Clock(10, 20, 0, "a")),
    ],
)
def test_a_text_that_says_it_is_a_time_is_one(text: str, clock: Clock) -> None:
    assert read_clock(text) == clock


@pytest.mark.parametrize("text", ["3", "3:30", "25 pm", "3:75 pm", "3时", "3 apples", "pm"])
def test_others_are_none(text: str) -> None:
    assert read_clock(text) is None


def test_a_colon_alone_may_be_a_time_or_a_ratio() -> None:
    assert read_colon("15:30") == Clock(15, 30, 0, "")
    assert read_colon("3:2") is None, "minutes have two digits"


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("3:30 pm", "15:30", True),
        ("3:30 am", "3:30", True),
        ("3:30 pm", "3:30", True),  # the gold answer leaves it open
        ("3:30 am", "3:30 pm", False),
        ("3:31", "3:30", False),
    ],
)
def test_which_times_are_the_same(answer: str, gold: str, same: bool) -> None:
    first, second = (read_clock(text) or read_colon(text) for text in (answer, gold))
    assert first is not None and second is not None
    assert same_clock(first, second) is same


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024-03-05", Date(2024, 3, 5)),
        ("2024年3月5日", Date(2024, 3, 5)),
        ("3月5日", Date(None, 3, 5)),
        ("March 5, 2024", Date(2024, 3, 5)),
        ("Sunday, March 5th", Date(None, 3, 5)),
        ("the 5th of March", Date(None, 3, 5)),
        ("25/12/2024", Date(2024, 12, 25)),
        ("12/25/2024", Date(2024, 12, 25)),
        ("4/4/2024", Date(2024, 4, 4)),
        ("3/4/2024", None),  # April 3rd in London, March 4th in New York
        ("2024-13-05", None),
        ("Smarch 5", None),
    ],
)
def test_a_date_is_read_only_where_it_can_be_read_in_one_way(text: str, date: Date | None) -> None:
    assert read_date(text) == date
