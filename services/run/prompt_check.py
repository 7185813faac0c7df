"""Looks at prompts as the engines will, before anything starts: rendered, tokenized, each with a rubric.

All held-out prompts, and of every source so many, evenly spread: a set of millions is not read through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rayzero.rollout_workers.templates import render, room_after
from rayzero.services.data.prompts import PromptMix
from rayzero.services.planning.model_files import check_generation_config, check_vocabulary
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.prompt_tokenizer import PromptTokenizer, open_tokenizer
from rayzero.services.schema.config.data import DataSettings, DataSource, ReasoningGymSource
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import PromptRefused, PromptTooLong, RecipeError
from rayzero.services.schema.messages import Prompt

SAMPLE = 64
"""Training prompts of each source that are rendered."""

Say = Callable[[str], None]


def check_prompts(
    recipe: Recipe, train: PromptMix, held_out: Sequence[Prompt], model: Path | None, shape: ModelShape, say: Say
) -> None:
    """`model` is its directory, None as long as it is not on this machine; `say` hears what was not looked at, and what
    will be dropped.

    Raises:
        RecipeError: a source without a rubric, an answer that no file can hold, a prompt that the model cannot read.
    """
    for prompt in (*train, *held_out):
        check_rubric_of(recipe, prompt)
        check_answer(prompt)
    if model is None:
        say("the prompts were not rendered: the model is not on this machine yet")
        return
    check_generation_config(model)
    tokenizer = open_tokenizer(model)
    if tokenizer is None:
        say("the prompts were not rendered: it takes the model's tokenizer.json and the Python package tokenizers")
        return
    check_vocabulary(tokenizer, shape)
    for prompt in held_out:
        try:
            _measure(recipe, prompt, tokenizer)
        except PromptRefused as error:
            raise RecipeError(f"data.held_out: {error}") from None
    for index, part in enumerate(train.parts):
        _check_sample(recipe, index, part.prompts, tokenizer, say)


def with_fewer_puzzles(data: DataSettings) -> tuple[DataSettings, int, int]:
    """The data with as many generated puzzles as are looked at, and how many of training and held-out ones are left
    out: ten thousand take minutes to make. None is where held-out prompts are split off from them."""
    if not data.held_out:
        return data, 0, 0
    train, held_out = _fewer(data.train), _fewer(data.held_out)
    return data.model_copy(update={"train": train[0], "held_out": held_out[0]}), train[1], held_out[1]


def _fewer(sources: Sequence[DataSource]) -> tuple[tuple[DataSource, ...], int]:
    kept: list[DataSource] = []
    num_left_out = 0
    for source in sources:
        if isinstance(source, ReasoningGymSource):
            wanted = min(source.num_prompts, source.max_prompts or source.num_prompts)
            num_left_out += max(0, wanted - SAMPLE)
            source = source.model_copy(update={"num_prompts": min(wanted, SAMPLE)})
        kept.append(source)
    return tuple(kept), num_left_out


def check_rubric_of(recipe: Recipe, prompt: Prompt) -> None:
    """A source that a column names must have a rubric as one that the recipe names."""
    if recipe.reward.rubric_for(prompt.source) is None:
        known = ", ".join(recipe.reward.rubrics)
        raise RecipeError(
            f"prompt {prompt.prompt_id} has the source {prompt.source!r}, and reward.rubrics has none for it (there "
            f"are: {known}): add one under {prompt.source!r} or under 'default', or correct columns.source"
        )


def check_answer(prompt: Prompt) -> None:
    """Every rollout is recorded with its answer, as JSON."""
    try:
        json.dumps(prompt.answer, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"prompt {prompt.prompt_id}: its answer, {_shown(prompt.answer)}, cannot be written as JSON ({error}): "
            "give text, a number, or lists and mappings of them"
        ) from None


def _check_sample(recipe: Recipe, index: int, prompts: Sequence[Prompt], tokenizer: PromptTokenizer, say: Say) -> None:
    sample, long = list(_spread(prompts)), []
    for prompt in sample:
        try:
            _measure(recipe, prompt, tokenizer)
        except PromptTooLong as error:
            long.append(error)
        except PromptRefused as error:
            raise RecipeError(f"data.train.{index}: {error}") from None
    if long and len(long) == len(sample):
        raise RecipeError(
            f"data.train.{index}: all of {len(sample)} prompts that were looked at are too long: {long[0]}"
        )
    if long:
        say(f"data.train.{index}: {len(long)} of {len(sample)} prompts are too long and will be dropped: {long[0]}")


def _measure(recipe: Recipe, prompt: Prompt, tokenizer: PromptTokenizer) -> int:
    _, token_ids = render(prompt, recipe.rollout.prompt_template, tokenizer)
    return room_after(prompt, len(token_ids), recipe.rollout)


def _spread(prompts: Sequence[Prompt]) -> Iterator[Prompt]:
    count = min(SAMPLE, len(prompts))
    return (prompts[number * len(prompts) // count] for number in range(count))


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:59] + '…'} of the type {type(value).__name__}"
