"""Custom functions as users write them, called in real child processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from rayzero.rewards.base import Context, Reward, Score
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.rewards.rubric import RubricComponent, compose
from rayzero.services.schema.config.reward_components import CustomComponent
from rayzero.services.schema.messages import VerdictStatus
from tests.unit.rewards.cases import case

MODULE = "tests.unit.rewards.functions"
LIMITS = {"deadline_s": 0.5, "memory_bytes": 2**28}


@asynccontextmanager
async def custom(function: str, **settings: Any) -> AsyncIterator[Reward]:
    component = CustomComponent.model_validate({"limits": LIMITS, "function": f"{MODULE}:{function}", **settings})
    reward = build_reward(component, Capacity(num_children=2))
    try:
        yield reward
    finally:
        await reward.close()


async def scores_of(function: str, *texts: str, columns: dict[str, Any] | None = None, **settings: Any) -> list[Score]:
    async with custom(function, **settings) as reward:
        return await reward.score([case(text, answer=text, columns=columns) for text in texts], Context())


async def test_the_signature_of_trl() -> None:
    scores = await scores_of("length", "a", "abc", full_score=3.0)
    assert [score.value for score in scores] == [1.0, 3.0]
    assert [score.status for score in scores] == [VerdictStatus.WRONG, VerdictStatus.CORRECT]


async def test_columns_by_name_and_none_for_what_does_not_apply() -> None:
    assert [score.value for score in await scores_of("matches", "a", columns={"level": 2})] == [2.0]
    assert [score.value for score in await scores_of("matches", "a", columns={"level": None})] == [None]


async def test_messages_async_functions_and_fixed_arguments() -> None:
    assert [score.value for score in await scores_of("chat", "hi", "ho", conversational=True)] == [1.0, 0.0]
    assert [score.value for score in await scores_of("later", "x", arguments={"scale": 0.5})] == [0.5]


async def test_only_the_culprit_of_a_group_is_an_error() -> None:
    scores = await scores_of("stuck_on", "fine", "sleep", "raise", "die", "fine")
    assert [score.value for score in scores[::4]] == [1.0, 1.0]
    assert [score.cause for score in scores] == [None, "deadline", "exception", "died", None]
    assert "no score for this one" in scores[2].reason
    assert "status 9" in scores[3].reason


async def test_a_function_that_compares_a_group_is_never_given_less() -> None:
    assert [score.value for score in await scores_of("rank", "aa", "b", isolate=False)] == [0.5, 0.0]
    scores = await scores_of("rank", "aa", "raise", isolate=False)
    assert [score.cause for score in scores] == ["exception", "exception"]


async def test_wrong_returns_are_errors_that_say_so() -> None:
    assert (
        "for each of the 2 completions; it returned 1 of the type float"
        in (await scores_of("too_few", "a", "b", isolate=False))[0].reason
    )
    assert (await scores_of("not_a_number", "a"))[0].cause == "not-finite"
    missing = (await scores_of("needs", "a"))[0]
    assert missing.cause == "exception" and "difficulty" in missing.reason


async def test_the_groups_deadline_leaves_finished_cases_their_scores() -> None:
    async with custom("stuck_on", limits={**LIMITS, "deadline_s": 30.0}) as reward:
        await reward.score([case("fine")], Context())
        hanging = asyncio.create_task(reward.score([case("sleep")], Context()))
        await asyncio.sleep(0.1)
        hanging.cancel()
        assert (await reward.score([case("fine")], Context()))[0].value == 1.0


@pytest.mark.parametrize(
    ("returned", "said"),
    [("one_for_all", "1 of the type float"), ("by_index", "a dict"), ("with_info", "2 of the type list, dict"),
     ("as_text", "2 of the type str"), ("nothing", "a NoneType")],
)  # fmt: skip
async def test_a_function_that_returns_something_else_is_an_error_and_is_asked_once(returned: str, said: str) -> None:
    async with custom(returned) as reward:
        scores = await reward.score([case("a"), case("b")], Context())
        assert [score.cause for score in scores] == ["bad-return"] * 2
        assert all(f"for each of the 2 completions; it returned {said}" in score.reason for score in scores)
        assert reward.pool.counts["items"] == 1  # type: ignore[attr-defined]


async def test_what_a_reward_prints_is_in_the_log_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    async with custom("prints") as reward:
        await reward.score([case("seen")], Context())
        assert "REWARD PRINT seen" in capfd.readouterr().err


async def test_what_a_function_logs_in_trls_way_comes_with_its_scores() -> None:
    async with custom("logs") as reward:
        cases = [replace(case(text), policy_version=7) for text in ("a", "bcd")]
        scores = await reward.score(cases, Context())
    assert [score.value for score in scores] == [7.0, 7.0], "trainer_state.global_step"
    assert [score.metrics for score in scores] == [{"chars": 2.0}] * 2
    assert [score.extra for score in scores] == [{"shouted": "A"}, {"shouted": "BCD"}]
    component = RubricComponent(reward=reward, weight=1.0)
    verdict = compose({"mine": component}, {"mine": scores[1]})
    assert verdict.components == {"mine": 7.0, "mine/chars": 2.0} and verdict.extra == {"mine/shouted": "BCD"}


async def test_an_extra_of_the_wrong_length_is_an_error() -> None:
    scores = await scores_of("logs", "a", "b", arguments={"wrong": True})
    assert {score.cause for score in scores} == {"bad-return"}
    assert "one value for each of the 2 completions; it got 1" in scores[0].reason
