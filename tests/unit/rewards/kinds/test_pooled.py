"""Answers that use up what a child may: theirs is the fault where the row alone does not."""

from __future__ import annotations

import pytest

from rayzero.rewards.base import Context, Score
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.kinds.regex import RegexReward
from rayzero.rewards.kinds.sql import SqlReward
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.reward_components import RegexComponent, SqlComponent
from tests.unit.rewards.cases import case

A = "replace(hex(zeroblob(20000)), '0', 'a')"
TRIM = f"SELECT trim({A}, replace({A}, 'a', 'b') || 'a')"
"""Quadratic within one call, which no budget of steps interrupts."""
ROWS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT zeroblob(1000000) FROM c LIMIT 9000"


def pool(target: str, argument: str | None = None) -> ChildPool:
    module = target.partition(":")[0]
    limits = {"num_children": 1, "deadline_s": 120.0, "memory_bytes": 64 * 2**20, "cpu_s": 0.3}
    return ChildPool(target, argument, preload=[module], **limits)  # type: ignore[arg-type]


async def asked(gold: str, query: str) -> Score:
    reward = SqlReward(SqlComponent(), pool("rayzero.rewards.kinds.sql:judge_of"))
    try:
        return (await reward.score([case(query, answer=gold, columns={"setup": "CREATE TABLE t(x)"})], Context()))[0]
    finally:
        await reward.close()


@pytest.mark.parametrize("query", [TRIM, ROWS], ids=["cpu", "memory"])
async def test_a_query_that_exhausts_its_limits_is_wrong_and_no_error(query: str) -> None:
    score = await asked("SELECT 1", query)
    assert score.value == 0.0 and "exhausts its limits" in score.reason


async def test_a_gold_query_that_does_is_an_error() -> None:
    assert (await asked(TRIM, "SELECT 1")).cause is ErrorCause.CPU


async def test_a_pattern_that_never_ends_is_no_fault_of_the_answer() -> None:
    reward = RegexReward(RegexComponent(answer_from="whole"), pool("rayzero.rewards.kinds.regex:matcher", "full"))
    try:
        (score,) = await reward.score([case("a" * 40, answer="(a+)+b")], Context())
    finally:
        await reward.close()
    assert score.cause is ErrorCause.CPU
