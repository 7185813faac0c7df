"""Looks, before anything starts, whether prompts hold what their rubric compares with.

A wrong kind of answer is an error verdict for every completion otherwise, once engines have sampled them. Starts no
child and judges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from rayzero.rewards.base import Case, PureReward
from rayzero.rewards.kinds.code_reward import spec_of
from rayzero.rewards.kinds.math_reward import gold_texts
from rayzero.rewards.kinds.pooled import BadPromptError, NoAnswerError, PooledReward
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import AnyComponent
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.messages import Prompt

SAMPLE = 64
"""Prompts of each source."""
BY_ANSWER = {"choice", "exact", "instructions", "json_schema", "regex"}
"""Kinds that read a prompt without a child or a network."""


def check_answers(recipe: Recipe, prompts: Iterable[Prompt], say: Callable[[str], None]) -> None:
    """`say` hears of sources of which some prompts cannot be judged.

    Raises:
        RecipeError: none of a source can.
    """
    seen, bad, first = Counter[str](), Counter[tuple[str, str]](), dict[tuple[str, str], str]()
    finders: dict[tuple[str, str], Callable[[Prompt], str]] = {}
    for prompt in prompts:
        if seen[prompt.source] >= SAMPLE:
            continue
        seen[prompt.source] += 1
        for name, component in (recipe.reward.rubric_for(prompt.source) or {}).items():
            key = (prompt.source, name)
            if key not in finders:
                finders[key] = _finder(component)
            if fault := finders[key](prompt):
                bad[key] += 1
                first.setdefault(key, fault)
    for (source, name), count in bad.items():
        rubric = source if source in recipe.reward.rubrics else "default"
        said = f"reward.rubrics.{rubric}.{name}: {first[source, name]}"
        if count == seen[source]:
            raise RecipeError(
                f"{said}; so it is with all of {count} prompts of source {source!r} that were looked at: name the "
                "column of the answer (columns.answer), or take another kind of reward"
            )
        say(f"{said}; so it is with {count} of {seen[source]} prompts of source {source!r} that were looked at")


def _finder(component: AnyComponent) -> Callable[[Prompt], str]:
    """A function that says what is wrong with a prompt; empty where nothing is, or nothing can be said here."""
    if component.kind == "math":
        return lambda prompt: _unless(
            gold_texts(prompt.answer), prompt, "the gold answer must be text, a number or a list of them"
        )
    if component.kind == "code":
        return lambda prompt: _unless(spec_of(prompt.answer), prompt, "the answer must be {language, tests}, or tests")
    if component.kind not in BY_ANSWER:
        return lambda prompt: ""
    reward = build_reward(component, Capacity(num_children=1))
    return lambda prompt: _fault(reward, Case(prompt=prompt, text="", finish_reason="stop"))


def _unless(found: object, prompt: Prompt, must: str) -> str:
    return "" if found else f"{prompt.prompt_id}: {must}, not {type(prompt.answer).__name__}"


def _fault(reward: object, case: Case) -> str:
    if isinstance(reward, PureReward):
        score = reward.judge(case)
        return score.reason if score.cause is ErrorCause.BAD_PROMPT else ""
    if isinstance(reward, PooledReward):
        try:
            reward.item(case)
        except BadPromptError as error:
            return f"{case.prompt.prompt_id}: {error}"
        except NoAnswerError:
            pass
    return ""
