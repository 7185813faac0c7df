"""Prompts as the model gets them, looked at before a start: too long, left out, cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayzero.services.data.stream import MixPart, PromptMix
from rayzero.services.planning.model_shape import read_shape
from rayzero.services.run.prompt_check import check_prompts
from rayzero.services.schema.errors import RecipeError
from tests.small_recipe import write_model
from tests.unit.services.run.test_prompt_length import prompt, recipe

SHORT, LONG = "1+1=", "1" * 20_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def checked(model: Path, train: list[str], held_out: list[str], **data: Any) -> list[str]:
    """What is said."""
    said: list[str] = []
    mix = PromptMix(parts=(MixPart(weight=1.0, prompts=tuple(map(prompt, train))),))
    check_prompts(recipe(**data), mix, tuple(map(prompt, held_out)), model, read_shape(model), said.append)
    return said


def test_a_held_out_prompt_that_is_too_long_is_refused_with_the_key(model: Path) -> None:
    with pytest.raises(RecipeError, match=r"^data\.held_out: .*data\.max_prompt_tokens"):
        checked(model, [SHORT], [SHORT, LONG])


def test_with_a_limit_it_is_left_out_or_cut_as_the_run_will(model: Path) -> None:
    left_out = checked(model, [SHORT], [SHORT, LONG], max_prompt_tokens=20)
    assert any("held-out prompts: 1 of 2 have more than 20 tokens and are left out" in text for text in left_out)
    cut = checked(model, [SHORT, LONG], [SHORT, LONG], max_prompt_tokens=20, on_long_prompt="truncate")
    assert sum("cut at their beginning" in text for text in cut) == 2


def test_prompts_to_train_on_that_are_too_long_are_counted_and_all_of_them_refused(model: Path) -> None:
    assert any("1 of 2 prompts are too long and will be dropped" in text for text in checked(model, [SHORT, LONG], []))
    with pytest.raises(RecipeError, match=r"data\.train\.0: all of 1 prompts"):
        checked(model, [LONG], [])
    with pytest.raises(RecipeError, match=r"data\.max_prompt_tokens: all 1 prompts of data\.train\.0"):
        checked(model, [LONG], [], max_prompt_tokens=20)
