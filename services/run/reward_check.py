"""Calls each custom reward once before anything starts: a function that is missing or returns the wrong thing is found
out while nothing has been paid for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from pydantic import ValidationError

from rayzero.rewards.base import Case, Context, Score
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.data.sources.function import module_hint
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import CustomComponent
from rayzero.services.schema.errors import ActorStartError, RecipeError, UsageError
from rayzero.services.schema.messages import Prompt

PATIENCE_S = 3.0
"""For one function: what loads a model of its own is left to the run."""


def check_custom_rewards(recipe: Recipe, prompts: Iterable[Prompt], say: Callable[[str], None]) -> None:
    """Score made-up completions of the first prompt of each source, and `say` what each gets.

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
    examples: dict[str, list[Prompt]] = {}
    for prompt in islice(prompts, 10_000):
        key = prompt.source if prompt.source in recipe.reward.rubrics else "default"
        known = examples.setdefault(key, [])
        if not known or (len(known) == 1 and prompt.answer != known[0].answer):
            known.append(prompt)
    for key, (source, component) in wanted.items():
        if source in examples:
            asyncio.run(_try(key, component, examples[source], say))


def try_reward(function: str, prompts: Sequence[Prompt], say: Callable[[str], None]) -> None:
    """The same for one `module:function` that no recipe names yet.

    Raises:
        UsageError: it is none; RecipeError: as above.
    """
    try:
        component = CustomComponent(kind="custom", function=function)
    except ValidationError:
        raise UsageError(f"--reward {function}: write it as module:function, e.g. my_rewards:short") from None
    asyncio.run(_try("reward", component, prompts, say))


async def _try(key: str, component: CustomComponent, prompts: Sequence[Prompt], say: Callable[[str], None]) -> None:
    reward = build_reward(component, Capacity(num_children=1))
    texts = _made_up(prompts)
    cases = [Case(prompt=prompts[0], text=text, finish_reason="stop") for text in texts.values()]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reward.start()
            scores = await reward.score(cases, Context())
    except TimeoutError:
        say(f"{key}: {component.function} was not tried, it takes longer than {PATIENCE_S:g} s")
        return
    except ActorStartError as error:
        hint = module_hint(str(error), component.function.partition(":")[0])
        raise RecipeError(f"{key}.function: {error}{hint}") from None
    finally:
        await reward.close()
    _refuse_misfits(key, component, prompts[0], scores)
    if all(score.cause is ErrorCause.EXCEPTION for score in scores):
        say(f"{key}: {component.function} raised for made-up completions: {scores[0].reason}")
        return
    said = [f"{_score_text(score)} to {what}" for what, score in zip(texts, scores, strict=True)]
    if len({_score_text(score) for score in scores}) == 1:
        said = [f"{_score_text(scores[0])} to each of {', '.join(texts)}"]
    say(f"{key}: {component.function} gives {', '.join(said)} ({prompts[0].prompt_id})")


def _made_up(prompts: Sequence[Prompt]) -> dict[str, str]:
    """What is tried, by what it is: the first prompt's answer in a box, another prompt's, and nothing. Where there are
    no answers its own text, too, which a reward that looks for words may take for a good one."""
    golds = [str(prompt.answer) for prompt in prompts if isinstance(prompt.answer, str | int | float)]
    if not golds:
        return {"the prompt's own text": prompts[0].messages[-1].content, "a short text": "Yes.", "no text": ""}
    right = golds[0]
    wrong = golds[1] if len(golds) > 1 else f"not {right}"
    texts = {
        f"the right answer {_boxed(right)}": _boxed(right),
        f"another one {_boxed(wrong)}": _boxed(wrong),
        "no text": "",
    }
    return {_shortened(what): text for what, text in texts.items()}


def _boxed(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


def _shortened(text: str, limit: int = 60) -> str:
    text = " ".join(text.split())  # a note is one line
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _score_text(score: Score) -> str:
    if score.is_error:
        return f"an error ({score.reason.splitlines()[0][:100] if score.reason else score.cause})"
    return "no score" if score.value is None else f"{score.value:g}"


def _refuse_misfits(key: str, component: CustomComponent, prompt: Prompt, scores: Sequence[Score]) -> None:
    """A function that returned the wrong thing, or that cannot be called with what a run gives it."""
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
            f"row (of prompt {prompt.prompt_id}: {columns}): name those alone, or take **kwargs besides; a column that "
            "data.train[].columns maps comes as `prompts` or `answer` instead (`columns: {answer: null}` maps none)"
        )
