"""Numbers in words, English and Chinese: whole phrases become digits, all other text stays as it is."""

from __future__ import annotations

import pytest

from rayzero.rewards.math.reading.number_words import with_digits, with_part


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("twenty-five", "25"),
        ("one hundred and five", "105"),
        ("two thousand three hundred", "2300"),
        ("minus seven", "-7"),
        ("three quarters", "\\frac{3}{4}"),
        ("half an hour", "\\frac{1}{2} hour"),
        ("a dozen eggs", "12 eggs"),
        ("twelve apples", "12 apples"),
        ("三十五", "35"),
        ("三分之二", "\\frac{2}{3}"),
        ("一半", "\\frac{1}{2}"),
        ("3.5 million", "3.5*1000000"),
        ("3.5亿", "3.5*100000000"),
    ],
)
def test_words_become_digits(text: str, digits: str) -> None:
    assert with_digits(text).strip() == digits


@pytest.mark.parametrize("text", ["twenty twenty", "one two", "sevenish", "hundred", "x + 1", "3千克", "-one"])
def test_what_is_no_number_of_words_is_left_or_read_as_far_as_it_is_one(text: str) -> None:
    assert not with_digits(text).strip().isdigit()


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        ("two and a half hours", "2\\frac{1}{2} ⟪hours⟫"),
        ("3 and a quarter", "3\\frac{1}{4}"),
        ("you and a half", "you and a half"),
        ("two and a bit", "two and a bit"),
    ],
)
def test_a_whole_and_a_part(text: str, mixed: str) -> None:
    assert with_part(text) == mixed
