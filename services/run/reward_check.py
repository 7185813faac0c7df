"""Calls each custom reward once before anything starts: a function that is missing or returns the wrong thing is found
out while nothing has been paid for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from itertools import islice

from rayzero.rewards.base import Case, Context
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.data.sources.function import module_hint
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import CustomComponent
from rayzero.services.schema.errors import ActorStartError, RecipeError
from rayzero.services.schema.messages import Prompt

PATIENCE_S = 3.0
"""For one function: what loads a model of its own is left to the run."""


def check_custom_rewards(recipe: Recipe, prompts: Iterable[Prompt], say: Callable[[str], None]) -> None:
    """Score made-up completions of the first prompt of each source; their scores do not matter.

    Raises:
        RecipeError: a module or function is missing, or does not return one score a completion.
    """
    wanted = {
        f"reward.rubrics.{source}.{name}": (source, component)
        for source, rubric in recipe.reward.rubrics.items()
        for name, component in rubric.items()
        if isinstance(component, CustomComponent)
    }
    if not wanted:
        return
    examples: dict[str, Prompt] = {}
    for prompt in islice(prompts, 10_000):
        key = prompt.source if prompt.source in recipe.reward.rubrics else "default"
        examples.setdefault(key, prompt)
    for key, (source, component) in wanted.items():
        if source in examples:
            asyncio.run(_try(key, component, examples[source], say))


async def _try(key: str, component: CustomComponent, prompt: Prompt, say: Callable[[str], None]) -> None:
    reward = build_reward(component, Capacity(num_children=1))
    answer = prompt.answer if isinstance(prompt.answer, str) else "42"
    cases = [Case(prompt=prompt, text=text, finish_reason="stop") for text in ("", answer)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reward.start()
            scores = await reward.score(cases, Context())
    except TimeoutError:
        say(f"{key}: {component.function} was not tried, it takes longer than {PATIENCE_S:g} s")
        return
    except ActorStartError as error:
        why = str(error).partition(" cannot be used: ")[2] or str(error)
        hint = module_hint(why, component.function.partition(":")[0])
        raise RecipeError(f"{key}.function: {component.function} cannot be used: {why}{hint}") from None
    finally:
        await reward.close()
    for score in scores:
        if score.cause is ErrorCause.BAD_RETURN:
            raise RecipeError(f"{key}: {score.reason}")
    called = re.compile(
        rf"TypeError: (\w+\.)?({re.escape(component.function.partition(':')[2])}|__call__)\(\) (missing|takes|got) "
    )
    if misfit := next((score.reason for score in scores if called.match(score.reason)), ""):
        columns = ", ".join(sorted(prompt.columns)) or "none"
        raise RecipeError(
            f"{key}: {misfit}; a reward is called by name, with prompts, completions, answer and the columns of the "
            f"row (of prompt {prompt.prompt_id}: {columns}): name those alone, or take **kwargs besides"
        )
    if all(score.cause is ErrorCause.EXCEPTION for score in scores):
        say(f"{key}: {component.function} raised for made-up completions: {scores[0].reason}")
