"""Looks at prompts as the engines will, before anything starts: rendered and tokenized.

All held-out prompts, and of every source so many, evenly spread: a set of millions is not read through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rayzero.rollout_workers.templates import render, room_after
from rayzero.services.data.prompt_table import MADE_ROWS
from rayzero.services.data.stream import MixPart, PromptMix
from rayzero.services.planning.model_files import check_generation_config, check_vocabulary, ends_texts
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.prompt_tokenizer import PromptTokenizer, open_tokenizer
from rayzero.services.run.prompt_length import PromptLimiter
from rayzero.services.schema.config.data import DataSettings, DataSource, ReasoningGymSource
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import PromptRefused, PromptTooLong, RecipeError
from rayzero.services.schema.messages import Prompt

SAMPLE = 64
"""Training prompts of each source that are rendered."""

MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})
"""Columns that hold what a text model cannot be shown."""

Say = Callable[[str], None]


def check_prompts(
    recipe: Recipe, train: PromptMix, held_out: Sequence[Prompt], model: Path | None, shape: ModelShape, say: Say
) -> None:
    """`model` is the directory of its tokenizer at least, None where that cannot be had here; `say` hears what was not
    looked at, and what will be dropped.

    Raises:
        RecipeError: a prompt that the model cannot read.
    """
    if model is None:
        say("the prompts were not rendered: the model's tokenizer is not on this machine, and could not be fetched")
        return
    check_generation_config(model)
    tokenizer = open_tokenizer(model)
    if tokenizer is None:
        say("the prompts were not rendered: it takes the model's tokenizer.json and the Python package tokenizers")
        return
    check_vocabulary(tokenizer, shape)
    if not ends_texts(tokenizer) and not recipe.rollout.sampling.stop:
        say(
            "the model has no token that ends a text (eos_token of its tokenizer): every completion will run to "
            "rollout.sampling.max_tokens; name the token there, or set rollout.sampling.stop"
        )
    try:
        if recipe.data.max_prompt_tokens is not None:
            held_out = PromptLimiter(recipe, tokenizer).fit(held_out, "held-out prompts", say)
        for prompt in held_out:
            _measure(recipe, prompt, tokenizer)
    except PromptRefused as error:
        raise RecipeError(f"data.held_out: {error}") from None
    for index, part in enumerate(train.parts):
        _check_sample(recipe, index, part, tokenizer, say)


def with_fewer_puzzles(data: DataSettings) -> tuple[DataSettings, int]:
    """The data with as many generated held-out puzzles as `rayzero check` looks at, and how many are left out: hundreds
    take a minute to make. None is where held-out prompts are split off from those to train on."""
    if not data.held_out:
        return data, 0
    held_out, num_left_out = list[DataSource](), 0
    for source in data.held_out:
        if isinstance(source, ReasoningGymSource):
            wanted = min(source.num_prompts, source.max_prompts or source.num_prompts)
            num_left_out += max(0, wanted - MADE_ROWS)
            source = source.model_copy(update={"num_prompts": min(wanted, MADE_ROWS)})
        held_out.append(source)
    return data.model_copy(update={"held_out": tuple(held_out)}), num_left_out


def _check_sample(recipe: Recipe, index: int, part: MixPart, tokenizer: PromptTokenizer, say: Say) -> None:
    sample, long = list(part.sample(SAMPLE)), list[PromptTooLong]()
    try:
        if recipe.data.max_prompt_tokens is not None and part.fit is None:
            limiter = PromptLimiter(recipe, tokenizer)
            limiter.look_at(part, f"data.train.{index}", say)
            sample = [fitted for prompt in sample if (fitted := limiter.fitted(prompt)) is not None]
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
    shown = next((name for name in prompt.columns if name in MEDIA and prompt.columns[name]), None)
    if shown is not None:
        raise PromptRefused(
            f"prompt {prompt.prompt_id} has a column {shown!r}: text alone is trained on, and the model would not see "
            "it: leave such rows out, or take the column away where the question does without it"
        )
    _, token_ids = render(prompt, recipe.rollout, tokenizer)
    return room_after(prompt, len(token_ids), recipe.rollout)
