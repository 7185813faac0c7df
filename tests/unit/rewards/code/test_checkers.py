"""Custom checkers: the recipe lists them, a row may name one of those and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rayzero.rewards.code.checkers import CheckerError, ListedCheckers
from rayzero.rewards.code.judge import CodeJudge
from rayzero.rewards.code.spec import SpecError, parse

NEAR = "tests.unit.rewards.child_functions:near"
BROKEN = "tests.unit.rewards.child_functions:broken_checker"
TEST = {"stdin": "1", "expected": "1"}


@pytest.fixture
async def checkers() -> AsyncIterator[ListedCheckers]:
    made = ListedCheckers([NEAR, BROKEN], num_children=1)
    yield made
    await made.close()


@pytest.mark.parametrize("name", ["os:execlp", "timeit:timeit", " os:execlp ", "os.path:join"])
@pytest.mark.parametrize("place", ["spec", "test"])
async def test_a_row_names_no_function_of_its_own_choice(name: str, place: str) -> None:
    checker = {"checker": {"custom": name}}
    spec: dict[str, Any] = {"tests": [TEST if place == "spec" else {**TEST, **checker}]}
    judge = CodeJudge()
    verdict = await judge.run("print(1)", {**spec, **checker} if place == "spec" else spec, is_program=True)
    await judge.close()
    assert (verdict.status, verdict.cause) == ("error", "spec")
    assert "checkers" in verdict.reason and name.strip() in verdict.reason


def test_a_listed_one_may_be_named(checkers: ListedCheckers) -> None:
    checkers.require(parse({"tests": [{**TEST, "checker": {"custom": NEAR}}]}))
    checkers.require(parse({"tests": [TEST], "checker": {"custom": "def check(i, o, e): return o == e"}}))
    with pytest.raises(SpecError, match="not among"):
        checkers.require(parse({"tests": [TEST], "checker": {"custom": NEAR + "er"}}))


async def test_it_judges_in_a_child(checkers: ListedCheckers) -> None:
    assert (await checkers.judge(NEAR, "1", "1.05", "1")).passed
    assert not (await checkers.judge(NEAR, "1", "2", "1")).passed


async def test_rubbish_that_it_cannot_read_is_wrong(checkers: ListedCheckers) -> None:
    said = await checkers.judge(NEAR, "1", "rubbish \ud800", "1")
    assert not said.passed and "cannot read" in said.reason


async def test_one_that_cannot_read_the_expected_output_either_is_at_fault(checkers: ListedCheckers) -> None:
    with pytest.raises(CheckerError, match="KeyError"):
        await checkers.judge(BROKEN, "1", "1", "1")
