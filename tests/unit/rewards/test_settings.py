"""The recipe's reward section: what it takes, what it refuses, and that every kind can be built."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from rayzero.rewards.base import Reward
from rayzero.rewards.kinds.math_reward import math_reward
from rayzero.rewards.registry import BUILDERS, Capacity, build_rubric
from rayzero.services.schema.config.reward import RewardSettings
from rayzero.services.schema.config.reward_components import AnyComponent, MathComponent

KINDS: dict[str, dict[str, Any]] = {
    "math": {},
    "code": {},
    "format": {"answer_tags": True},
    "language": {"target": "Chinese"},
    "overlong": {"max_tokens": 8, "margin_tokens": 2},
    "cosine_length": {"of": "math", "max_tokens": 8},
    "repetition": {},
    "reasoning_gym": {},
    "exact": {"answer_from": "answer_tags"},
    "choice": {"options_column": "choices"},
    "json_schema": {},
    "regex": {"match": "search"},
    "instructions": {"partial": True},
    "sql": {"order": "strict"},
    "custom": {"function": "module:function"},
    "environment": {},
    "remote": {"url": "http://127.0.0.1:1/score"},
    "judge": {"base_url": "http://127.0.0.1:1/v1", "model": "judge"},
    "reward_model": {"path": "somewhere"},
}


def settings(rubric: dict[str, Any], **others: Any) -> RewardSettings:
    return RewardSettings.model_validate({"rubrics": {"default": rubric}, **others})


def test_every_kind_can_be_configured_and_is_built() -> None:
    kinds = {component.model_fields["kind"].default for component in get_args(get_args(AnyComponent)[0])}
    assert kinds == set(KINDS) == set(BUILDERS)


async def test_a_rubric_of_every_kind_is_built_without_starting_anything() -> None:
    rubric = settings({kind: {"kind": kind, **values} for kind, values in KINDS.items()}).rubric_for("default")
    assert rubric is not None
    built = build_rubric(rubric, Capacity(num_children=1))
    assert built.parts["cosine_length"].requires == ("math",)
    await built.close()


def test_a_gate_may_be_one_name_or_several() -> None:
    rubric = {"a": {"kind": "math", "gate": "f"}, "f": {"kind": "format"}, "g": {"kind": "format", "gate": ["f", "a"]}}
    components = settings(rubric).rubrics["default"]
    assert components["a"].gate == ("f",)
    assert components["g"].gate == ("f", "a")


async def test_rubrics_that_ask_for_the_same_share_it() -> None:
    rewards: dict[str, Reward] = {}
    first, second, third = (
        build_rubric(settings({"a": {"kind": "math", **more}}).rubrics["default"], Capacity(num_children=1), rewards)
        for more in ({}, {"weight": 2.0}, {"limits": {"cpu_s": 1.0}})
    )
    assert first.parts["a"].reward is second.parts["a"].reward is not third.parts["a"].reward
    assert len(rewards) == 2


@pytest.mark.parametrize(
    ("rubric", "message"),
    [
        ({}, "rubric 'default' is empty"),
        ({"a": {"kind": "math", "weight": 0}}, "every weight is 0"),
        ({"a": {"kind": "math", "gate": "format"}}, "a refers to 'format', which it does not have: a"),
        ({"a": {"kind": "math", "gate": "a"}}, "a wait for one another"),
        ({"a": {"kind": "math", "gate": "b"}, "b": {"kind": "format", "gate": "a"}}, "a, b wait for one another"),
        ({"a": {"kind": "cosine_length", "of": "b", "max_tokens": 8}}, "a refers to 'b'"),
        ({"a": {"kind": "language", "target": "tlh"}}, "unknown language 'tlh'"),
        ({"a": {"kind": "custom", "function": "module.function"}}, "pattern"),
        ({"a": {"kind": "poetry"}}, "poetry"),
        ({"a": {"kind": "math", "wieght": 2}}, "wieght"),
    ],
)
def test_what_cannot_work_is_refused(rubric: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(rubric)


def test_workers_lie_within_their_bounds() -> None:
    assert settings({"a": {"kind": "math"}}, num_workers=4, max_workers=4).num_workers == 4
    with pytest.raises(ValidationError, match=r"num_workers \(4\) must lie within"):
        settings({"a": {"kind": "math"}}, num_workers=4, max_workers=3)


def test_each_source_has_its_rubric_or_the_default() -> None:
    rubrics = {"default": {"a": {"kind": "math"}}, "code": {"b": {"kind": "code"}}}
    both = RewardSettings.model_validate({"rubrics": rubrics})
    assert both.rubric_for("code") == both.rubrics["code"]
    assert both.rubric_for("other") == both.rubrics["default"]
    assert RewardSettings.model_validate({"rubrics": {"code": rubrics["code"]}}).rubric_for("other") is None


def test_the_tools_defaults_are_the_recipes() -> None:
    parameters = inspect.signature(math_reward).parameters
    limits = MathComponent().limits
    assert parameters["cpu_s"].default == limits.cpu_s
    assert parameters["deadline_s"].default == limits.deadline_s
    assert parameters["memory_bytes"].default == limits.memory_bytes
