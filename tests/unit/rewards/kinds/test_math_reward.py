"""Math in child processes: what goes in, what comes out, and what is no verdict."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from rayzero.rewards.base import Context
from rayzero.rewards.children.warm_up import NUM_PASSES, PAIRS, math_steps
from rayzero.rewards.kinds.math_reward import gold_text, math_reward
from rayzero.services.schema.messages import VerdictStatus
from tests.unit.rewards.cases import case


async def test_scores_and_reasons_and_equal_cases_once() -> None:
    reward = math_reward(num_children=1)
    try:
        await reward.start()
        texts = ["\\boxed{\\frac12}", "\\boxed{1}", "no box", "\\boxed{\\frac12}"]
        scores = await reward.score([case(text, answer="0.5") for text in texts], Context())
        assert [score.value for score in scores] == [1.0, 0.0, 0.0, 1.0]
        assert [score.status for score in scores[:2]] == [VerdictStatus.CORRECT, VerdictStatus.WRONG]
        assert all(score.reason and 0 < score.seconds < 3 for score in scores)
        assert reward.pool.counts["items"] == 3
        (bad,) = await reward.score([case("\\boxed{1}", answer={"a": 1})], Context())
        assert bad.is_error and bad.cause == "bad-prompt"
        of_a_list = [case(f"\\boxed{{{n}}}", answer=["1", 3]) for n in (3, 2)]
        assert [score.value for score in await reward.score(of_a_list, Context())] == [1.0, 0.0]
    finally:
        await reward.close()


async def test_an_open_thought_and_a_bad_gold_answer_earn_nothing() -> None:
    reward = math_reward(num_children=1, fallback_column="fallback")
    try:
        open_thought = replace(case("\\boxed{9}. But wait", answer="9"), prompt_text="Q <think>\n")
        closed = replace(case("so 9</think>\\boxed{9}", answer="9"), prompt_text="Q <think>\n")
        line = case("Answer: 9", answer="9", columns={"fallback": ("answer_line",)})
        empty = case("\\boxed{9}", answer=" ")
        scores = await reward.score([open_thought, closed, line, empty], Context())
        assert [score.value for score in scores[:3]] == [0.0, 1.0, 1.0]
        assert scores[3].is_error and scores[3].cause == "bad-prompt"
    finally:
        await reward.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [("9", "9"), (9, "9"), (0.5, "0.5"), (True, None), (None, None), (float("nan"), None), ({"a": 1}, None)],
)
def test_gold_answers_are_text_or_numbers(answer: Any, text: str | None) -> None:
    assert gold_text(answer) == text


def test_warming_up_is_quick_and_never_holds_up_the_zygote() -> None:
    longest = total = 0.0
    steps = math_steps()
    for _ in range(NUM_PASSES * len(PAIRS)):
        started = time.process_time()
        next(steps)
        longest = max(longest, time.process_time() - started)
        total += time.process_time() - started
    assert next(steps, "over") == "over"
    assert longest < 1.0, "a kill would wait for so long"
    assert total < 4.0
