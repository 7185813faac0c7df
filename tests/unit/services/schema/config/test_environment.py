"""What a recipe's `environment` refuses, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rayzero.services.schema.config.environment import AgentEnvironment, PythonEnvironment
from rayzero.services.schema.config.recipe import Recipe
from tests.fakes import make_recipe

GAME = {"factory": "my_envs:Game"}


def recipe(environment: dict[str, Any] | None, **sections: Any) -> Recipe:
    """A small recipe with an environment."""
    content = make_recipe().model_dump(mode="json", exclude_none=True)
    return Recipe.model_validate(content | ({} if environment is None else {"environment": environment}) | sections)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"give a factory \(module:Class\), or tools"),
        ({"tools": ["calculator"], "tool_parser": "text"}, "give one"),
        ({"tools": ["calculator", "my:calculator"]}, "2 are called calculator"),
        ({"tools": ["search"]}, "'search' is no tool: write module:function, or one of calculator, python"),
        ({**GAME, "num_workers": 9, "max_workers": 4}, r"num_workers \(9\) must lie within"),
        ({**GAME, "limits": {"step_s": 20, "episode_s": 10}}, "no step could reach its own limit"),
        ({**GAME, "limits": {"turns": 0}}, "greater than or equal to 1"),
        ({"factory": "no class"}, "match pattern"),
    ],
)
def test_what_can_never_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PythonEnvironment.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"give a function \(module:name\) or a command \(a list of words\), one of the two"),
        ({"function": "my:agent", "command": ["agent"]}, "one of the two"),
        ({"command": ["agent"], "arguments": {"speed": 1}}, "arguments are a function's"),
        ({"command": ["", "agent"]}, "its first word is the program's name"),
        ({"command": ["agent", "a\0b"]}, "no word may hold a NUL"),
        ({"command": "agent --fast"}, "command"),
        ({"function": "my:agent", "malformed": "mask"}, "malformed"),
    ],
)
def test_what_is_no_agent_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AgentEnvironment.model_validate(settings)


def test_an_environment_without_a_kind_is_a_class() -> None:
    assert isinstance(recipe(GAME).environment, PythonEnvironment)
    assert isinstance(recipe({"kind": "agent", "function": "my:agent"}).environment, AgentEnvironment)
    kept = recipe({"kind": "agent", "command": ["agent"]})
    assert Recipe.model_validate(kept.model_dump(mode="json")) == kept
    with pytest.raises(ValidationError, match="'python', 'agent'"):
        recipe({"kind": "agnet", "function": "my:agent"})


def test_the_most_that_an_episode_samples_is_of_all_its_turns() -> None:
    assert recipe(None).max_completion_tokens == recipe(None).rollout.sampling.max_tokens
    limits: dict[str, Any] = {"turns": 3, "turn_tokens": 5}
    assert recipe(GAME | {"limits": limits}).max_completion_tokens == 15
    assert recipe(GAME | {"limits": limits | {"episode_tokens": 12}}).max_completion_tokens == 12


def test_a_recipe_holds_environment_and_rubric_together() -> None:
    rubric = {"reward": {"rubrics": {"default": {"game": {"kind": "environment"}}}}}
    assert recipe(GAME, **rubric).environment is not None
    with pytest.raises(ValidationError, match=r"reward\.rubrics\.default\.game asks an environment, and there is none"):
        recipe(None, **rubric)


@pytest.mark.parametrize(
    ("environment", "sections", "said"),
    [
        (GAME, {"rollout": {"prompt_template": "r1_zero"}}, "choose chat or text"),
        ({**GAME, "limits": {"turn_tokens": 2000}}, {}, "leaves no room for a prompt"),
        (GAME, {"deadlines": {"group_s": 100}}, r"must be longer than environment\.limits\.episode_s"),
        (None, {"learner": {"credit": {"name": "discounted"}}}, "credit: discounted needs rewards of single turns"),
        ({"kind": "agent", "function": "my:agent"}, {"learner": {"credit": {"name": "progress"}}}, "kind python and"),
        ({**GAME, "malformed": "mask"}, {"learner": {"credit": {"name": "progress"}}}, "mask leaves turns out"),
    ],
)
def test_what_does_not_fit_the_rest_is_refused(environment: Any, sections: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(environment, **sections)
