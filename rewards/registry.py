"""Recipe components -> rewards: one line a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayzero.rewards.base import Reward
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.rubric import Rubric, RubricComponent
from rayzero.services.schema.config.reward import requirements_of
from rayzero.services.schema.config.reward_component import ChildLimits
from rayzero.services.schema.config.reward_components import (
    AnyComponent,
    ChoiceComponent,
    CodeComponent,
    CosineLengthComponent,
    CustomComponent,
    EnvironmentComponent,
    ExactComponent,
    FormatComponent,
    InstructionsComponent,
    JsonSchemaComponent,
    JudgeComponent,
    LanguageComponent,
    MathComponent,
    OverlongComponent,
    ReasoningGymComponent,
    RegexComponent,
    RemoteComponent,
    RepetitionComponent,
    RewardModelComponent,
    SqlComponent,
)
from rayzero.services.schema.devices import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What one reward worker may use at a time."""

    num_children: int
    """Child processes that run at a time, of each component that judges in children: two of them run twice as many."""
    max_asleep: int = 32
    """Children besides these that may hang without using a CPU."""
    device: Device = "cpu"
    """What reward models compute on: `cuda` where the worker has reserved a GPU."""


def build_rubric(
    components: Mapping[str, AnyComponent], capacity: Capacity, rewards: dict[str, Reward] | None = None
) -> Rubric:
    """The rubric that a recipe describes. Starts no process yet: children come with the first case.

    `rewards`, by settings, are those that there are: what is not among them is built and added.
    """
    known = {} if rewards is None else rewards
    return Rubric({name: _part(component, capacity, known) for name, component in components.items()})


def build_reward(component: AnyComponent, capacity: Capacity) -> Reward:
    """The reward that a recipe's component describes."""
    return BUILDERS[component.kind](component, capacity)


def child_pool(
    target: str,
    argument: Any,
    limits: ChildLimits,
    capacity: Capacity,
    *preload: str,
    environment: Sequence[str] = (),
    what: str = "",
) -> ChildPool:
    """Children for one component."""
    return ChildPool(
        target,
        argument,
        num_children=capacity.num_children,
        max_asleep=capacity.max_asleep,
        cpu_s=limits.cpu_s,
        deadline_s=limits.deadline_s,
        memory_bytes=limits.memory_bytes,
        preload=preload,
        environment=environment,
        what=what,
    )


def _part(component: AnyComponent, capacity: Capacity, known: dict[str, Reward]) -> RubricComponent:
    key = component.model_dump_json(exclude={"weight", "gate"})
    if key not in known:
        known[key] = build_reward(component, capacity)
    return RubricComponent(
        reward=known[key],
        weight=component.weight,
        gates=component.gate,
        requires=tuple(name for name in requirements_of(component) if name not in component.gate),
    )


def _math(component: MathComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.math_reward import math_reward

    limits = component.limits
    return math_reward(
        component.rules,
        num_children=capacity.num_children,
        max_asleep=capacity.max_asleep,
        cpu_s=limits.cpu_s,
        deadline_s=limits.deadline_s,
        memory_bytes=limits.memory_bytes,
        warm_first=True,  # a run replaces children for hours, and waits for this once
    )


def _code(component: CodeComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.code_reward import code_reward

    return code_reward(
        component.sandbox,
        num_parallel=capacity.num_children,
        partial=component.partial,
        checkers=component.checkers,
    )


def _format(component: FormatComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.format import FormatReward

    return FormatReward(answer_tags=component.answer_tags)


def _language(component: LanguageComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.language import LanguageReward

    return LanguageReward(
        target=component.target, target_column=component.target_column, empty_score=component.empty_score
    )


def _overlong(component: OverlongComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.length import OverlongReward

    return OverlongReward(component)


def _cosine_length(component: CosineLengthComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.length import CosineLengthReward

    return CosineLengthReward(component)


def _repetition(component: RepetitionComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.length import RepetitionReward

    return RepetitionReward(component)


def _reasoning_gym(component: ReasoningGymComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.reasoning_gym import ReasoningGymReward

    return ReasoningGymReward(component, num_parallel=capacity.num_children)


def _exact(component: ExactComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.exact import ExactReward

    return ExactReward(component)


def _choice(component: ChoiceComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.choice import ChoiceReward

    return ChoiceReward(component)


def _json_schema(component: JsonSchemaComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.json_schema import JsonSchemaReward

    pool = child_pool(
        "rayzero.rewards.kinds.json_schema:validator",
        None,
        component.limits,
        capacity,
        "rayzero.rewards.kinds.json_schema",
    )
    return JsonSchemaReward(component, pool)


def _regex(component: RegexComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.regex import RegexReward

    pool = child_pool(
        "rayzero.rewards.kinds.regex:matcher",
        component.match,
        component.limits,
        capacity,
        "rayzero.rewards.kinds.regex",
    )
    return RegexReward(component, pool)


def _instructions(component: InstructionsComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.instructions import InstructionsReward

    return InstructionsReward(component)


def _sql(component: SqlComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.sql import SqlReward

    return SqlReward(
        component,
        child_pool("rayzero.rewards.kinds.sql:judge_of", None, component.limits, capacity, "rayzero.rewards.kinds.sql"),
    )


def _custom(component: CustomComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.custom import CustomReward

    modules = ["rayzero.rewards.children.work"] + ([component.function.partition(":")[0]] if component.preload else [])
    spec = (component.function, component.arguments)
    pool = child_pool(
        "rayzero.rewards.children.work:custom_caller",
        spec,
        component.limits,
        capacity,
        *modules,
        environment=component.environment,
        what=component.function,
    )
    return CustomReward(component, pool)


def _remote(component: RemoteComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.remote import RemoteReward

    return RemoteReward(component)


def _judge(component: JudgeComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.llm_judge import JudgeReward

    return JudgeReward(component)


def _reward_model(component: RewardModelComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.reward_model import RewardModelReward

    return RewardModelReward(component, capacity.device)


def _environment(component: EnvironmentComponent, capacity: Capacity) -> Reward:
    from rayzero.rewards.kinds.environment import EnvironmentReward

    return EnvironmentReward(component)


BUILDERS: Mapping[str, Callable[[Any, Capacity], Reward]] = {
    "math": _math,
    "code": _code,
    "format": _format,
    "language": _language,
    "overlong": _overlong,
    "cosine_length": _cosine_length,
    "repetition": _repetition,
    "reasoning_gym": _reasoning_gym,
    "exact": _exact,
    "choice": _choice,
    "json_schema": _json_schema,
    "regex": _regex,
    "instructions": _instructions,
    "sql": _sql,
    "custom": _custom,
    "remote": _remote,
    "judge": _judge,
    "reward_model": _reward_model,
    "environment": _environment,
}
"""Imports happen inside: a run loads what its recipe names."""
