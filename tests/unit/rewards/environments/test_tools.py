"""The built-in tools: arithmetic that is bounded before it is computed, and programs in the sandbox."""

from __future__ import annotations

import pytest

from rayzero.rewards.environments.observations import shown
from rayzero.rewards.environments.tools import calculator


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("482*391", "188462"),
        ("(12 + 5) * 3", "51"),
        ("7 / 2", "3.5"),
        ("8 / 2", "4"),
        ("7 // 2", "3"),
        ("-7 % 3", "2"),
        ("2**10", "1024"),
        ("3 × 4 ÷ 2", "6"),
        ("2 ** -1", "0.5"),
        ("1e3 + 1", "1001"),
    ],
)
def test_it_calculates(expression: str, value: str) -> None:
    assert calculator(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9**9", "2**100000", "10**400*10**400*10**400*10**400", "1/0", "5 % 0", "(-8) ** 0.5", "0 ** -1",
        "__import__('os').system('id')", "a + 1", "True", "'x' * 9", "1 if 1 else 2", "[1]", "f(1)", "", "2 +",
        "1" * 2000, "(" * 500 + "1" + ")" * 500, "1e400", "1 << 9", "\x00",
    ],
)  # fmt: skip
def test_it_refuses_everything_else_at_once(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        calculator(expression)


def test_a_long_observation_loses_its_middle() -> None:
    assert shown("abcdef", 6) == "abcdef"
    assert shown("abcdefgh", 4) == "ab\n[… 4 characters cut …]\ngh"
    assert shown("half \ud83d", 100) == "half \\ud83d"
