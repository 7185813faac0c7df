"""Column sums: every row is right, held-out sums are kept apart, and the shares are those asked for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rayzero import verify
from rayzero.services.data.tasks.column_sums import column_sum_text, column_sums, columns
from rayzero.services.schema.errors import RecipeError


def numbers_of(row: dict[str, Any]) -> frozenset[int]:
    left, right = re.fullmatch(r"(\d+)\+(\d+)=", row["prompt"]).groups()  # type: ignore[union-attr]
    return frozenset((int(left), int(right)))


def test_a_sum_is_worked_out_from_the_right_with_its_carries() -> None:
    assert columns(457, 268) == "7+8+0=15,5+6+1=12,4+2+1=07"
    assert columns(99, 101) == "9+1+0=10,9+0+1=10,0+1+1=02"


def test_every_row_of_the_text_is_right_worked_out_or_not() -> None:
    rows = list(column_sum_text(num_rows=400, careful_share=0.3))
    careful = [row for row in rows if row["kind"] == "careful"]
    assert 90 < len(careful) < 150
    for row in rows:
        assert verify(row["completion"], str(sum(int(each) for each in row["prompt"][:-1].split("+")))).correct
        assert row["completion"].startswith("<think>") is (row["kind"] == "careful")
        for step in re.findall(r"(\d)\+(\d)\+(\d)=(\d\d)", row["completion"]):
            assert sum(map(int, step[:3])) == int(step[3])


@pytest.mark.parametrize("digits", [2, 3, 5])
def test_held_out_sums_occur_nowhere_else_nor_the_other_way_round(digits: int) -> None:
    held_out = {numbers_of(row) for row in column_sums(100, "held_out", seed=1, digits=digits)}
    seen = {numbers_of(row) for row in column_sums(300, "train", digits=digits)}
    seen |= {numbers_of(row) for row in column_sum_text(num_rows=2000, digits=digits)}
    assert len(held_out) > 50 and not held_out & seen
    assert all(len(str(number)) == digits for pair in held_out for number in pair)


def test_the_same_rows_come_every_time_and_other_seeds_give_others() -> None:
    assert list(column_sums(50)) == list(column_sums(50)) != list(column_sums(50, seed=1))
    assert len({row["prompt"] for row in column_sums(500)}) == 500


@pytest.mark.parametrize("arguments", [{"digits": 0}, {"num_prompts": 100, "digits": 1}])
def test_what_there_is_not_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="digits"):
        list(column_sums(**arguments))
    with pytest.raises(RecipeError, match="careful_share is 2"):
        list(column_sum_text(careful_share=2))
