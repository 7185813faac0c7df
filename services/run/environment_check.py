"""Makes and resets the environment once before anything starts: a class that is missing, or tools without a docstring,
are found out while nothing has been paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from rayzero.rewards.environments.hosts import host_of
from rayzero.rewards.environments.live import LiveEnvironment
from rayzero.rewards.environments.worker import EnvironmentHost
from rayzero.services.schema.config.environment import (
    AgentEnvironment,
    AnyEnvironment,
    VerifiersEnvironment,
)
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.episodes import EpisodeRequest
from rayzero.services.schema.errors import ActorStartError, EnvironmentFailed, RecipeError
from rayzero.services.schema.messages import Prompt

PATIENCE_S = 60.0
"""What loads more than that is left to the run."""


def check_environment(recipe: Recipe, prompts: Iterable[Prompt], say: Callable[[str], None]) -> None:
    """Make the environment, describe its tools, reset it for the first prompt; of an agent, look whether it is there.

    Raises:
        RecipeError: it cannot be used; names what is missing.
    """
    settings = recipe.environment
    prompt = next(iter(prompts), None)
    if settings is None:
        return
    if isinstance(settings, AgentEnvironment | VerifiersEnvironment):
        asyncio.run(_look_for(settings, say))
    elif prompt is not None:
        asyncio.run(_try(recipe, settings, prompt, say))


async def _look_for(settings: AgentEnvironment | VerifiersEnvironment, say: Callable[[str], None]) -> None:
    """Import the agent's function or the taskset, or find its program; it is not started: there is no model yet."""
    host = host_of(settings)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await host.start()
    except TimeoutError:
        say(f"environment: it was not looked for, its import takes longer than {PATIENCE_S:g} s")
    except ActorStartError as error:
        raise RecipeError(f"environment: {error}") from None
    finally:
        await host.close()


async def _try(recipe: Recipe, settings: AnyEnvironment, prompt: Prompt, say: Callable[[str], None]) -> None:
    host = host_of(settings)
    assert isinstance(host, EnvironmentHost)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await host.start()
            process = await host.process()
            live = LiveEnvironment(process=process, settings=host.settings)
            request = EpisodeRequest(
                group_id=0, index=0, prompt=prompt, sampling=recipe.training_sampling(0), environment_seed=recipe.seed
            )
            await live.reset(request)
            live.kill()
    except TimeoutError:
        say(f"environment: it was not tried, it takes longer than {PATIENCE_S:g} s to make")
        return
    except ActorStartError as error:
        raise RecipeError(f"environment: {error}") from None
    except EnvironmentFailed as error:
        raise RecipeError(f"environment: prompt {prompt.prompt_id}: {error}") from None
    finally:
        await host.close()
    asks = any(
        component.kind == "environment" for rubric in recipe.reward.rubrics.values() for component in rubric.values()
    )
    if asks and not host.has_reward:
        raise RecipeError(
            "environment: it has no method get_reward, and a rubric has a component of kind environment: add one of "
            "the two, or leave the other out"
        )
