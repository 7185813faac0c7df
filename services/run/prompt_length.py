"""`data.max_prompt_tokens`: prompts that are longer as the model gets them are left out, or cut, before the start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from rayzero.rollout_workers.templates import ChatTokenizer, render
from rayzero.services.data.stream import MixPart, PromptMix
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Prompt

SAMPLE_PROMPTS = 500
"""Of a source that is not read whole before the start."""


def fit_prompts(
    recipe: Recipe, train: PromptMix, held_out: tuple[Prompt, ...], tokenizer: ChatTokenizer, say: Callable[[str], None]
) -> tuple[PromptMix, tuple[Prompt, ...]]:
    """The prompts that fit, `say` hears how many did not.

    Raises:
        RecipeError: none of a source does.
    """
    if recipe.data.max_prompt_tokens is None:
        return train, held_out
    counted = sum(len(part.prompts) for part in train.parts if part.admits is None) + len(held_out)
    say(f"counting the tokens of {counted:,} prompts")
    limiter = PromptLimiter(recipe, tokenizer)
    parts = []
    for index, part in enumerate(train.parts):
        if part.admits is not None:
            limiter.look_at(part, f"data.train.{index}", say)
            parts.append(replace(part, fit=limiter.fitted))
            continue
        prompts = limiter.fit(part.prompts, f"data.train.{index}", say)
        parts.append(MixPart(weight=part.weight, prompts=prompts))
    return PromptMix(parts=tuple(parts)), limiter.fit(held_out, "held-out prompts", say)


class PromptLimiter:
    """One limit and what is done to prompts beyond it."""

    def __init__(self, recipe: Recipe, tokenizer: ChatTokenizer) -> None:
        self._rollout, self._tokenizer = recipe.rollout, tokenizer
        self._limit = recipe.data.max_prompt_tokens or 0
        self._cuts = recipe.data.on_long_prompt == "truncate"

    def fit(self, prompts: Iterable[Prompt], whose: str, say: Callable[[str], None]) -> tuple[Prompt, ...]:
        """Those that fit; `say` hears how many of `whose` were cut or left out. Raises RecipeError where none fits."""
        given = tuple(prompts)
        kept, num_cut = [], 0
        for prompt in given:
            fitted = self.fitted(prompt)
            if fitted is not None:
                kept.append(fitted)
                num_cut += fitted is not prompt
        if given and not kept:
            raise RecipeError(
                f"data.max_prompt_tokens: all {len(given):,} prompts of {whose} have more than {self._limit} tokens: "
                "raise it"
            )
        for number, what in ((num_cut, "cut at their beginning"), (len(given) - len(kept), "left out")):
            if number:
                say(f"{whose}: {number:,} of {len(given):,} have more than {self._limit} tokens and are {what}")
        return tuple(kept)

    def look_at(self, part: MixPart, whose: str, say: Callable[[str], None]) -> None:
        """A sample of a source that is not read whole: the others are counted when they are drawn."""
        sample = list(part.sample(SAMPLE_PROMPTS))
        long = [prompt for prompt in sample if self._length(prompt) > self._limit]
        if len(long) == len(sample) and all(self.fitted(prompt) is None for prompt in long):
            raise RecipeError(
                f"data.max_prompt_tokens: all {len(sample):,} prompts of {whose} that were looked at have more than "
                f"{self._limit} tokens: raise it"
            )
        if long:
            what = "cut at their beginning" if self._cuts else "left out"
            say(
                f"{whose}: {len(long):,} of {len(sample):,} that were looked at have more than {self._limit} tokens "
                f"and are {what}, as the others will be when they are drawn"
            )

    def fitted(self, prompt: Prompt) -> Prompt | None:
        """A prompt as it fits; None where it is left out."""
        if self._length(prompt) <= self._limit:
            return prompt
        return self._cut(prompt) if self._cuts else None

    def _length(self, prompt: Prompt) -> int:
        return len(render(prompt, self._rollout, self._tokenizer)[1])

    def _cut(self, prompt: Prompt) -> Prompt | None:
        """With the longest end of the last message that fits, the other turns whole; None where nothing of it does."""
        *before, last = prompt.messages
        fits, too_long = len(last.content), 0
        while fits - too_long > 1:
            middle = (fits + too_long) // 2
            tried = replace(prompt, messages=(*before, replace(last, content=last.content[middle:])))
            fits, too_long = (middle, too_long) if self._length(tried) <= self._limit else (fits, middle)
        content = last.content[fits:]
        return replace(prompt, messages=(*before, replace(last, content=content))) if content.strip() else None
