from __future__ import annotations

import pytest

from rayzero.rewards.math.rules import Rules
from rayzero.rewards.math.verify import verify_answer

STRICT = Rules(worked_out=True)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("523*734", "383882"),
        (r"523 \times 734", "383882"),
        ("40+2", "42"),
        ("(40+2)", "42"),
        ("84/2", "42"),
        (r"\frac{84}{2}", "42"),
        ("6(7)", "42"),
        ("x = 40+2", "42"),
        ("x = 40+2", "x = 42"),
        ("2^{10}", "1024"),
        (r"\sqrt{1764}", "42"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        ("1/2 + 1/4", "3/4"),
        ("50-8.5", "41.5"),
        ("1+1, 3", "2, 3"),
        (r"40+2 \text{ apples}", r"42 \text{ apples}"),
        ("4.2*100", "420"),
        ("6*7 m", "42 m"),
        ("x = 6*7 for all n", "42"),
        ("6*7%", "42%"),
    ],
)
def test_what_is_left_to_calculate_is_wrong_where_it_was_asked_for(answer: str, gold: str) -> None:
    assert verify_answer(answer, gold).correct, "its value is right"
    verdict = verify_answer(answer, gold, STRICT)
    assert not verdict.correct and "not worked out" in verdict.reason


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("42", "42"),
        ("-42", "-42"),
        ("x = 42", "42"),
        ("1,234", "1234"),
        ("42.0", "42"),
        (r"42 \text{ apples}", "42"),
        (r"3\times10^5", "300000"),
        ("10^{6}", "1000000"),
        (r"2.5 \cdot 10^{-3}", "0.0025"),
        ("1/2", "0.5"),
        (r"\frac{2}{4}", r"\frac12"),
        (r"-\frac{1}{2}", "-0.5"),
        ("0.75", "3/4"),
        ("3 1/2", "3.5"),
        ("50%", "1/2"),
        ("3, 2", "2, 3"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"\sqrt{12}", r"2\sqrt{3}"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"\pi/2", r"\frac{\pi}{2}"),
        ("2+3", "2+3"),
        ("523*734 = 383882", "383882"),
        ("Paris", "paris"),
        ("B", "(B)"),
        ("(1, 2]", "(1, 2]"),
        ("5-3i", "5-3i"),
    ],
)
def test_written_numbers_and_other_forms_are_as_they_were(answer: str, gold: str) -> None:
    assert verify_answer(answer, gold).correct and verify_answer(answer, gold, STRICT).correct
