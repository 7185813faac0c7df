"""Puzzles are made when they are asked for: the same at the same place, few of them before a run."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rayzero.services.data.prompt_table import MADE_ROWS
from rayzero.services.data.prompts import load_prompts
from rayzero.services.data.sources.reasoning_gym import Puzzles, read
from rayzero.services.data.stream import PromptStream
from rayzero.services.schema.config.data import DataSettings, ReasoningGymSource

pytest.importorskip("reasoning_gym")

SUMS: dict[str, Any] = {"kind": "reasoning_gym", "task": "chain_sum", "num_prompts": 10_000}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places of the puzzles that were made."""
    places: list[int] = []
    get = Puzzles.__getitem__

    def noted(self: Puzzles, index: int) -> Any:
        if index not in self._kept:
            places.append(index)
        return get(self, index)

    monkeypatch.setattr(Puzzles, "__getitem__", noted)
    return places


def data(**more: Any) -> DataSettings:
    held_out = [{**SUMS, "num_prompts": 6, "seed": 1}]
    return DataSettings.model_validate({"train": [SUMS], "held_out": held_out, **more})


def test_a_start_makes_few_of_them_and_the_rest_as_they_are_drawn(made: list[int]) -> None:
    train, held_out = load_prompts(data(), 4)
    assert len(train) == 10_000 and len(held_out) == 4
    stream = PromptStream(train, seed=3)
    assert list(train.sample()) and len(made) <= MADE_ROWS + 6 + 4
    before = len(made)
    drawn = [stream.next() for _ in range(20)]
    assert len(made) <= before + 20 + 2
    again = PromptStream(load_prompts(data(), 4)[0], seed=3)
    assert [again.next() for _ in range(20)] == drawn
    assert again.find(drawn[5].prompt_id) == drawn[5]
    going_on = PromptStream(load_prompts(data(), 4)[0], seed=3)
    going_on.load_state_dict(stream.state_dict())
    assert going_on.next() == stream.next()


def test_another_seed_or_parameter_is_other_data() -> None:
    states = [
        PromptStream(load_prompts(data(train=[{**SUMS, **change}]), 4)[0], seed=0).state_dict()["data"]
        for change in ({}, {}, {"seed": 5}, {"parameters": {"max_terms": 3}})
    ]
    assert states[0] == states[1] and len(set(states)) == 3


def test_a_puzzle_that_is_held_out_is_passed_over_when_it_is_drawn() -> None:
    train, held_out = load_prompts(data(train=[{**SUMS, "seed": 1, "num_prompts": 12}]), 6)
    stream = PromptStream(train, seed=0)
    asked = {stream.next().messages[-1].content for _ in range(30)}
    assert len(asked) == 6 and not asked & {prompt.messages[-1].content for prompt in held_out}


def test_without_held_out_sources_all_are_made_and_a_tenth_held_out() -> None:
    train, held_out = load_prompts(DataSettings.model_validate({"train": [{**SUMS, "num_prompts": 400}]}), 8)
    assert len(held_out) == 8 and 300 < len(train) < 400


def test_nothing_of_the_import_is_left_in_matplotlibs_place() -> None:
    read(ReasoningGymSource.model_validate(SUMS))
    assert getattr(sys.modules.get("matplotlib"), "__file__", "") is not None
