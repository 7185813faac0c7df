"""What `rayzero check` finds of an agent before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from rayzero.services.run.environment_check import check_environment
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError
from tests.fakes import make_recipe


def check(**environment: Any) -> None:
    """Of a recipe with this agent."""
    content = make_recipe().model_dump(mode="json", exclude_none=True)
    recipe = Recipe.model_validate(content | {"environment": {"kind": "agent", **environment}})
    check_environment(recipe, [], print)


def test_an_agent_that_is_there_passes() -> None:
    check(function="tests.agents:honest")
    check(command=["sh", "-c", "true"])


def test_one_that_is_not_is_named() -> None:
    with pytest.raises(RecipeError, match=r"environment: the agent tests\.agents:hones cannot be used: .*hones"):
        check(function="tests.agents:hones")
    with pytest.raises(RecipeError, match=r"environment: the agent my-agent cannot be used: .*not found on the PATH"):
        check(command=["my-agent"])
