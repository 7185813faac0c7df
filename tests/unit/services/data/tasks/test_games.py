from __future__ import annotations

import re

import pytest

from rayzero.services.data.tasks.games import (
    TURN_END,
    guess_number,
    guess_number_demonstrations,
    products,
)
from rayzero.services.schema.errors import RecipeError

TURN = re.compile(rf"(\d\d){re.escape(TURN_END)}([+-])")


def bounds(prompt: str) -> tuple[int, int]:
    """What the hints of a game leave."""
    low, high = 1, 16
    for number, hint in TURN.findall(prompt):
        low, high = (max(low, int(number) + 1), high) if hint == "+" else (low, min(high, int(number) - 1))
    return low, high


@pytest.mark.parametrize(("heeded_share", "least", "most"), [(1.0, 1.0, 1.0), (0.3, 0.55, 0.75), (0.0, 0.3, 0.6)])
def test_a_hint_is_heeded_as_often_as_asked(heeded_share: float, least: float, most: float) -> None:
    rows = list(guess_number_demonstrations(num_prompts=3000, heeded_share=heeded_share))
    hinted = [(bounds(row["prompt"]), int(row["completion"])) for row in rows if TURN.search(row["prompt"])]
    within = sum(low <= number <= high for (low, high), number in hinted) / len(hinted)
    assert len(hinted) > 1500 and least <= within <= most
    assert all(low <= high for (low, high), _ in hinted), "the hints of a game leave its secret"


def test_games_of_training_and_held_out_have_other_numbers() -> None:
    train, held_out = ({row["prompt"] for row in guess_number(500, split)} for split in ("train", "held_out"))
    demonstrated = {row["prompt"][:5] for row in guess_number_demonstrations(num_prompts=3000)}
    assert len(train) == len(held_out) == 500 and not held_out & (train | demonstrated)
    with pytest.raises(RecipeError, match="only"):
        list(guess_number(10_001))


def test_a_product_is_asked_after_the_rules_and_one_exchange() -> None:
    row = next(iter(products(1)))
    rules, asked, call, result, box, question = row["messages"]
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "<calc>" in rules["content"] and re.fullmatch(r"<calc>\d+\*\d+</calc>", call["content"])
    left, right = map(int, re.findall(r"\d+", question["content"]))
    assert row["answer"] == str(left * right) and result["content"][8:-9] == box["content"][7:-1]
    assert asked["content"] != question["content"]


def test_held_out_products_are_never_trained_on() -> None:
    def pairs(split: str) -> set[frozenset[str]]:
        return {frozenset(re.findall(r"\d+", row["messages"][-1]["content"])) for row in products(300, split)}  # type: ignore[arg-type]

    assert not pairs("train") & pairs("held_out")
    with pytest.raises(RecipeError, match="not 50 different products"):
        list(products(50, min_number=2, max_number=4))
