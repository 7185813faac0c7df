from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayzero.services.data.tasks.numbers import (
    addition,
    addition_demonstrations,
    damage_sum,
    number_after,
    work_out_sum,
)
from rayzero.services.schema.errors import RecipeError


def test_number_after_reads_as_it_should() -> None:
    row = next(number_after(num_prompts=1))
    shown, example, question = row["messages"]
    number = row["number"]
    assert question == {"role": "user", "content": f"Which number comes after {number}? Answer in \\boxed{{}}."}
    assert row["answer"] == str(number + 1)
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant", "user"]
    n = int(re.findall(r"\d+", shown["content"])[0])
    assert example["content"] == f"\\boxed{{{n + 1}}}"
    assert n != number


def test_splits_of_number_after_share_no_number_whatever_their_seeds() -> None:
    train = {row["number"] for row in number_after(num_prompts=8000, seed=1)}
    held_out = {row["number"] for row in number_after(num_prompts=900, split="held_out", seed=2)}
    assert len(train) == 8000 and len(held_out) == 900
    assert not train & held_out


def test_number_after_is_the_same_every_time_and_follows_its_seed() -> None:
    assert list(number_after(50)) == list(number_after(50))
    assert list(number_after(50)) != list(number_after(50, seed=1))


def test_asking_for_more_than_there_is_names_the_fix() -> None:
    with pytest.raises(RecipeError, match="raise max_number"):
        list(number_after(num_prompts=100, max_number=50))
    with pytest.raises(RecipeError, match="raise max_number"):
        list(addition(num_prompts=9000))


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (57, 68, "<think>7+8+0=15,5+6+1=12</think>\\boxed{125}"),
        (10, 10, "<think>0+0+0=0,1+1+0=2</think>\\boxed{20}"),
        (99, 99, "<think>9+9+0=18,9+9+1=19</think>\\boxed{198}"),
        (5, 123, "<think>3+5+0=8,2+0+0=2,1+0+0=1</think>\\boxed{128}"),
    ],
)
def test_sums_are_worked_out_by_columns(left: int, right: int, text: str) -> None:
    # The longer number first or second: columns are read as they stand.
    if (left, right) == (5, 123):
        left, right = right, left
    assert work_out_sum(left, right) == text


@given(st.integers(0, 9999), st.integers(0, 9999))
def test_worked_out_sums_are_right(left: int, right: int) -> None:
    text = work_out_sum(left, right)
    for a, b, carry, total in re.findall(r"(\d)\+(\d)\+(\d)=(\d+)", text):
        assert int(a) + int(b) + int(carry) == int(total)
    assert text.endswith(f"\\boxed{{{left + right}}}")


def test_addition_splits_share_no_sum_in_either_order() -> None:
    def pairs(split: str) -> set[frozenset[int]]:
        rows = addition(num_prompts=700, split=split)  # type: ignore[arg-type]
        return {frozenset(int(n) for n in re.findall(r"\d+", row["prompt"])) for row in rows}

    assert not pairs("train") & pairs("held_out")


def test_demonstrations_are_damaged_at_the_rate_asked_for() -> None:
    rows = list(addition_demonstrations(num_prompts=4000, damaged_share=0.6))
    damaged = [row for row in rows if row["kind"] == "damaged"]
    assert 0.57 < len(damaged) / len(rows) < 0.63
    for row in rows:
        right = row["completion"].endswith(f"\\boxed{{{row['answer']}}}")
        assert right == (row["kind"] == "correct")
        assert re.fullmatch(r"<think>[\d+=,]+</think>\\boxed\{\d+\}", row["completion"])


def test_demonstrations_never_show_a_held_out_sum() -> None:
    held_out = {row["prompt"] for row in addition(num_prompts=700, split="held_out")}
    assert not held_out & {row["prompt"] for row in addition_demonstrations(num_prompts=5000)}


def test_damage_changes_one_digit_of_the_box_and_nothing_else() -> None:
    text = work_out_sum(57, 68)
    for seed in range(50):
        damaged = damage_sum(text, random.Random(seed))
        assert damaged.partition("</think>")[0] == text.partition("</think>")[0]
        assert sum(old != new for old, new in zip(text, damaged, strict=True)) == 1
        assert re.sub(r"\d", "0", damaged) == re.sub(r"\d", "0", text)


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(RecipeError, match="damaged_share"):
        list(addition_demonstrations(damaged_share=60))
