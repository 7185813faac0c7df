"""Recipe components -> rewards: one line a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rewards.base import Reward
from rewards.rubric import Part, Rubric
from rewards.workers import ChildPool
from services.schema.config.reward import requirements_of
from services.schema.config.reward_components import AnyComponent, ChildLimits, FormatComponent, MathComponent


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What one reward worker may use at a time."""

    num_children: int
    """Child processes that run at a time, of each component that needs them."""
    max_asleep: int = 32
    """Children besides these that may hang without using a CPU."""


def build_rubric(components: Mapping[str, AnyComponent], capacity: Capacity) -> Rubric:
    """The rubric that a recipe describes. Starts no process yet: children come with the first case."""
    return Rubric({name: _part(component, capacity) for name, component in components.items()})


def build_reward(component: AnyComponent, capacity: Capacity) -> Reward:
    """The reward that a recipe's component describes."""
    return BUILDERS[component.kind](component, capacity)


def child_pool(target: str, argument: Any, limits: ChildLimits, capacity: Capacity, *preload: str) -> ChildPool:
    """Children for one component."""
    return ChildPool(
        target,
        argument,
        num_children=capacity.num_children,
        max_asleep=capacity.max_asleep,
        deadline_s=limits.deadline_s,
        memory_bytes=limits.memory_bytes,
        preload=preload,
    )


def _part(component: AnyComponent, capacity: Capacity) -> Part:
    return Part(
        reward=build_reward(component, capacity),
        weight=component.weight,
        gates=component.gate,
        requires=tuple(name for name in requirements_of(component) if name not in component.gate),
    )


def _math(component: MathComponent, capacity: Capacity) -> Reward:
    from rewards.accuracy import MathReward

    pool = child_pool(
        "rewards.child_work:math_verifier",
        component.rules,
        component.limits,
        capacity,
        "rewards.child_work",
        "rewards.math.verify",
    )
    return MathReward(pool)


def _format(component: FormatComponent, capacity: Capacity) -> Reward:
    from rewards.format import FormatReward

    return FormatReward(answer_tags=component.answer_tags)


BUILDERS: Mapping[str, Callable[[Any, Capacity], Reward]] = {
    "math": _math,
    "format": _format,
}
"""Imports happen inside: a run loads what its recipe names."""
