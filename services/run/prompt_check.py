"""Looks at prompts as the engines will, before anything starts: rendered and tokenized.

All held-out prompts, and of every source so many, evenly spread: a set of millions is not read through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rayzero.rollout_workers.templates import render, room_after
from rayzero.services.data.stream import PromptMix, Prompts
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
        RecipeError: a prompt that the model cannot read.
    """
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


def _check_sample(recipe: Recipe, index: int, prompts: Prompts, tokenizer: PromptTokenizer, say: Say) -> None:
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
    _, token_ids = render(prompt, recipe.rollout, tokenizer)
    return room_after(prompt, len(token_ids), recipe.rollout)


def _spread(prompts: Prompts) -> Iterator[Prompt]:
    count = min(SAMPLE, len(prompts))
    return (prompts[number * len(prompts) // count] for number in range(count))
