"""The fleets that a recipe asks for, and the runner that takes a group through them. None is started here."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.episode_runner import EpisodeRunner
from rayzero.services.loop.group_runner import GroupRunner
from rayzero.services.run.placement import GROUPS_PER_REWARD_WORKER, Placement
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.interfaces import EnvironmentWorker, RewardWorker, RolloutWorker


def runner_of(recipe: Recipe, placement: Placement, *, needs_weights: bool) -> GroupRunner:
    """Engines, reward workers and, where the recipe has an environment, its workers. `needs_weights`: engines serve
    once they are brought to the learner's."""
    training, patience_s = recipe.training, recipe.deadlines.stall_s
    engines: Fleet[RolloutWorker] = Fleet(
        "rollout", placement.rollout_worker, limit=recipe.rollout.num_groups, needs_weights=needs_weights
    )
    rewards: Fleet[RewardWorker] = Fleet("reward", placement.reward_worker, limit=GROUPS_PER_REWARD_WORKER)
    episodes = None
    if recipe.environment is not None:
        environments: Fleet[EnvironmentWorker] = Fleet(
            "environment", placement.environment_worker, limit=recipe.environment.concurrent_episodes
        )
        episodes = EpisodeRunner(environments, recipe.environment, training.max_group_attempts, patience_s)
    return GroupRunner(engines, rewards, training.max_group_attempts, patience_s, episodes)


def starts(runner: GroupRunner, recipe: Recipe) -> list[Coroutine[Any, Any, None]]:
    """The start of every fleet, with as many workers as the recipe says."""
    started = [
        runner.rollouts.start(recipe.rollout.num_workers),
        runner.rewards.start(recipe.reward.num_workers),
    ]
    if runner.episodes is not None:
        started.append(runner.episodes.environments.start(runner.episodes.settings.num_workers))
    return started
