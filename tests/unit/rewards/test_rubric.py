"""Weights, gates, errors: numbers worked out by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from rayzero.rewards.base import Case, Context, Score, failed, scored
from rayzero.rewards.rubric import Rubric, RubricComponent, compose
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import ChatMessage, Prompt, Verdict, VerdictStatus

FULL = scored(1.0, reason="right", seconds=0.25)
NONE = scored(0.0, reason="not right")
ABSENT = scored(None)
BROKEN = failed(ErrorCause.DEADLINE, "too slow")


class Scripted:
    """Returns what it was made with, after a while."""

    def __init__(self, *scores: Score, delay_s: float = 0.0, error: Exception | None = None) -> None:
        self.scores, self.delay_s, self.error = scores, delay_s, error
        self.closed = False
        self.context = Context()

    async def start(self) -> None:
        if self.error is not None:
            raise ActorStartError(str(self.error))

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        self.context = context
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return list(self.scores)

    async def close(self) -> None:
        self.closed = True


def part(weight: float = 1.0, *gates: str) -> RubricComponent:
    return RubricComponent(reward=Scripted(), weight=weight, gates=gates)


def verdict(parts: dict[str, RubricComponent], **scores: Score) -> Verdict:
    return compose(parts, scores)


def cases(number: int) -> list[Case]:
    prompt = Prompt(prompt_id="1", messages=(ChatMessage(role="user", content="Q"),), answer="1")
    return [Case(prompt=prompt, text=str(index)) for index in range(number)]


def test_the_reward_is_the_weighted_sum_and_every_component_is_kept() -> None:
    parts = {"accuracy": part(2.0), "format": part(0.5), "length": part(1.0)}
    got = verdict(parts, accuracy=FULL, format=NONE, length=scored(-0.25, full=0.0))
    assert got.reward == 2.0 * 1 + 0.5 * 0 - 0.25
    assert got.components == {"accuracy": 1.0, "format": 0.0, "length": -0.25}
    assert got.status is VerdictStatus.WRONG
    assert got.reason == "accuracy: right; format: not right; length: -0.25"
    assert got.seconds == 0.25


def test_correct_only_when_every_weighted_component_is_full() -> None:
    parts = {"accuracy": part(), "watched": part(0.0)}
    assert verdict(parts, accuracy=FULL, watched=NONE).status is VerdictStatus.CORRECT
    assert verdict(parts, accuracy=scored(0.999), watched=FULL).status is VerdictStatus.WRONG


def test_a_closed_gate_takes_a_component_out_of_the_sum_not_out_of_the_verdict() -> None:
    parts = {"accuracy": part(1.0, "format"), "format": part(0.1)}
    assert verdict(parts, accuracy=FULL, format=FULL).reward == 1.1
    shut = verdict(parts, accuracy=FULL, format=NONE)
    assert (shut.reward, shut.status) == (0.0, VerdictStatus.WRONG)
    assert shut.components == {"accuracy": 1.0, "format": 0.0}
    assert "gate closed" in shut.reason


def test_what_the_reward_is_the_sum_of_is_told() -> None:
    parts = {"accuracy": part(1.0, "format"), "format": part(0.1), "watched": part(0.0), "absent": part(0.5)}
    shut = verdict(parts, accuracy=FULL, format=scored(0.5), watched=FULL, absent=scored(None))
    assert shut.parts == {"accuracy": (1.0, 0.0), "format": (0.1, 0.5)}
    assert sum(weight * score for weight, score in shut.parts.values()) == shut.reward


def test_a_gate_that_does_not_apply_is_open() -> None:
    parts = {"accuracy": part(1.0, "format"), "format": part(0.1)}
    assert verdict(parts, accuracy=FULL, format=ABSENT).reward == 1.0


def test_an_error_is_never_a_reward() -> None:
    got = verdict({"accuracy": part(), "format": part()}, accuracy=BROKEN, format=FULL)
    assert math.isnan(got.reward)
    assert got.status is VerdictStatus.ERROR
    assert got.components == {"format": 1.0}
    assert got.reason == "deadline: accuracy: too slow"
    assert got.cause == "deadline"


def test_an_error_that_the_reward_does_not_need_spoils_nothing() -> None:
    parts = {"accuracy": part(1.0, "format"), "format": part(0.1), "watched": part(0.0)}
    got = verdict(parts, accuracy=BROKEN, format=NONE, watched=BROKEN)
    assert (got.reward, got.status, got.components) == (0.0, VerdictStatus.WRONG, {"format": 0.0})
    assert got.cause is None


def test_an_error_of_a_gate_is_an_error_of_what_it_guards() -> None:
    parts = {"accuracy": part(1.0, "format"), "format": part(0.0)}
    got = verdict(parts, accuracy=FULL, format=BROKEN)
    assert got.status is VerdictStatus.ERROR
    assert got.cause == "deadline"


def test_what_does_not_apply_leaves_the_sum_and_nothing_at_all_is_an_error() -> None:
    parts = {"accuracy": part(), "style": part()}
    some = verdict(parts, accuracy=FULL, style=ABSENT)
    assert (some.reward, some.status, some.components) == (1.0, VerdictStatus.CORRECT, {"accuracy": 1.0})
    none = verdict(parts, accuracy=ABSENT, style=ABSENT)
    assert none.status is VerdictStatus.ERROR
    assert none.cause == "nothing-applies"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error(value: float) -> None:
    assert scored(value).is_error


async def test_components_run_side_by_side_and_see_what_they_are_built_on() -> None:
    first = Scripted(FULL, NONE, delay_s=0.1)
    second = Scripted(FULL, FULL, delay_s=0.1)
    built = Scripted(NONE, NONE)
    parts = {
        "b": RubricComponent(reward=built, requires=("a",)),
        "a": RubricComponent(reward=first),
        "c": RubricComponent(reward=second),
    }
    rubric = Rubric(parts)
    async with asyncio.timeout(0.19):
        verdicts = await rubric.judge(cases(2))
    assert [each.reward for each in verdicts] == [2.0, 1.0]
    assert built.context.earlier == {"a": [FULL, NONE]}
    await rubric.close()
    assert first.closed and second.closed and built.closed


async def test_a_component_that_breaks_or_is_late_leaves_the_others_theirs() -> None:
    parts = {
        "good": RubricComponent(reward=Scripted(FULL, FULL)),
        "broken": RubricComponent(reward=Scripted(error=RuntimeError("oops")), weight=0.0),
        "short": RubricComponent(reward=Scripted(FULL), weight=0.0),
        "late": RubricComponent(reward=Scripted(delay_s=60.0)),
    }
    verdicts = await Rubric(parts).judge(cases(2), deadline_s=-0.9)
    assert [each.components for each in verdicts] == [{"good": 1.0}] * 2
    assert [each.cause for each in verdicts] == ["queue"] * 2


async def test_an_empty_group_has_no_verdicts() -> None:
    assert await Rubric({"a": RubricComponent(reward=Scripted())}).judge([]) == []


async def test_a_component_that_cannot_start_is_named() -> None:
    with pytest.raises(ActorStartError, match="reward component style: no such module"):
        await Rubric({"style": RubricComponent(reward=Scripted(error=RuntimeError("no such module")))}).start()
