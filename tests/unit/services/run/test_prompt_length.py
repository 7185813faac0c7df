"""Prompts that are longer than data.max_prompt_tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rayzero.services.data.stream import MixPart, PromptMix, PromptStream
from rayzero.services.run.prompt_length import fit_prompts
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import ChatMessage, Prompt
from tests.fakes import make_recipe
from tests.models import character_tokenizer


def recipe(**data: Any) -> Recipe:
    plain = make_recipe().model_dump(mode="json")
    plain["data"] |= data
    plain["rollout"]["prompt_template"] = "text"
    return Recipe.model_validate(plain)


def prompt(text: str) -> Prompt:
    messages = (ChatMessage(role="user", content="Add. "), ChatMessage(role="user", content=text))
    return Prompt(prompt_id=text[:4], messages=messages, answer="")


def fitted(texts: list[str], **data: Any) -> tuple[list[str], list[str]]:
    said: list[str] = []
    mix = PromptMix(parts=(MixPart(weight=1.0, prompts=tuple(map(prompt, texts))),))
    train, held_out = fit_prompts(recipe(**data), mix, (prompt("9+9="),), character_tokenizer(), said.append)
    assert len(held_out) == 1
    return [each.messages[-1].content for each in train], said


def test_without_a_limit_nothing_is_looked_at() -> None:
    assert fitted(["1" * 500]) == (["1" * 500], [])


def test_long_ones_are_left_out_and_counted() -> None:
    kept, said = fitted(["1+1=", "1" * 40, "2+2="], max_prompt_tokens=20)
    assert kept == ["1+1=", "2+2="]
    assert said == [
        "counting the tokens of 4 prompts",
        "data.train.0: 1 of 3 have more than 20 tokens and are left out",
    ]


def test_or_cut_at_the_beginning_of_their_last_message() -> None:
    kept, said = fitted(["1+1=", "what is " * 5 + "7+8="], max_prompt_tokens=20, on_long_prompt="truncate")
    assert kept == ["1+1=", "hat is what is 7+8="[-15:]]
    assert "1 of 2 have more than 20 tokens and are cut at their beginning" in said[1]


def test_nothing_left_and_no_room_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data.max_prompt_tokens: all 1 prompts of data.train.0 have more than 10"):
        fitted(["1" * 40], max_prompt_tokens=10)
    with pytest.raises(ValueError, match=r"must leave room for a completion in rollout.max_model_tokens"):
        recipe(max_prompt_tokens=100_000)


@pytest.mark.parametrize(
    ("on_long", "expected"), [("drop", {"1+1=", "2+2="}), ("truncate", {"1+1=", "2+2=", "1" * 15})]
)
def test_a_source_that_is_not_read_whole_is_counted_as_it_is_drawn(on_long: str, expected: set[str]) -> None:
    said: list[str] = []
    prompts = [
        replace(prompt(text), prompt_id=f"train/{number}") for number, text in enumerate(("1+1=", "1" * 40, "2+2="), 1)
    ]
    mix = PromptMix(parts=(MixPart(weight=1.0, prompts=tuple(prompts), fingerprint="x", admits=lambda _: True),))
    asked = recipe(max_prompt_tokens=20, on_long_prompt=on_long)
    train, _ = fit_prompts(asked, mix, (), character_tokenizer(), said.append)
    stream = PromptStream(train, seed=0)
    drawn = [stream.next() for _ in range(12)]
    assert {each.messages[-1].content for each in drawn} == expected
    assert stream.counts() == ({"too_long": 6} if on_long == "drop" else {})
    assert all(stream.find(each.prompt_id) == each for each in drawn)
    assert said[0] == "counting the tokens of 0 prompts" and "1 of 3 that were looked at have more than 20" in said[1]
    with pytest.raises(
        RecipeError, match=r"all 3 prompts of data\.train\.0 that were looked at have more than 1 tokens"
    ):
        fit_prompts(recipe(max_prompt_tokens=1), mix, (), character_tokenizer(), said.append)
