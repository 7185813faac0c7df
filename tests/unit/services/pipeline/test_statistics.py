"""pass@k, majority@k and intervals against numbers written out."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest

from rayzero.services.loop.estimate import estimate
from rayzero.services.pipeline.evaluate import answer_of
from rayzero.services.pipeline.statistics import figures_by_source, majority, pass_at
from rayzero.services.schema.messages import Group, Rollout, Verdict, VerdictStatus
from tests.fakes import make_completion, make_prompt


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 1), (4, 1, 2), (6, 2, 3), (5, 0, 2), (5, 5, 5), (8, 3, 4)])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(n: int, c: int, k: int) -> None:
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at(k, c, n) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


def test_pass_at_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@4 needs at least 4"):
        pass_at(4, 1, 3)


def test_the_majority_votes_by_answer_and_ties_are_shared() -> None:
    assert majority(["7", "7", "8"], [True, True, False]) == 1.0
    assert majority(["7", "8", "8"], [True, False, False]) == 0.0
    assert majority(["7", "8"], [True, False]) == 0.5
    assert majority([None, None, "7"], [False, False, True]) == 1.0
    assert majority([None], [False]) == 0.0


def test_an_interval_comes_from_the_spread_over_prompts() -> None:
    found = estimate([0.0, 0.5, 1.0, 0.5])
    assert found.mean == 0.5
    assert found.standard_error == pytest.approx(math.sqrt((0.25 + 0 + 0.25 + 0) / 3 / 4))
    assert found.interval == pytest.approx((0.5 - 1.96 * 0.204124, 0.5 + 1.96 * 0.204124), abs=1e-5)
    assert math.isnan(estimate([1.0]).standard_error) and math.isnan(estimate([]).mean)


def group(source: str, *texts_and_scores: tuple[str, float | None]) -> Group:
    rollouts = []
    for text, score in texts_and_scores:
        status = VerdictStatus.ERROR if score is None else VerdictStatus.CORRECT if score else VerdictStatus.WRONG
        components = {} if score is None else {"accuracy": score, "format": 1.0}
        verdict = Verdict(
            reward=math.nan if score is None else score, components=components, status=status, reason="", seconds=0.0
        )
        rollouts.append(Rollout(completion=make_completion(text=text, num_tokens=4), verdict=verdict))
    prompt = replace(make_prompt(1), source=source)
    tokens = make_completion().token_ids
    return Group(group_id=1, prompt=prompt, prompt_token_ids=tokens, rollouts=tuple(rollouts))


def test_figures_by_source_leave_errors_out() -> None:
    groups = [
        group("sums", (r"\boxed{7}", 1.0), (r"\boxed{7}", 1.0)),
        group("sums", (r"\boxed{8}", 0.0), (r"\boxed{7}", None)),
        group("chat", ("hello", 1.0), ("hi", 0.0)),
    ]
    figures = figures_by_source(groups, answer_of, ["format"])
    assert list(figures) == ["all", "sums", "chat"]
    sums = figures["sums"]
    assert sums["accuracy"]["mean"] == 0.5 and sums["num_errors"] == 1
    assert sums["pass@2"]["prompts"] == 1, "a prompt that lost a completion cannot say what two would do"
    assert figures["chat"]["pass@2"]["mean"] == 1.0 and figures["chat"]["majority@2"]["mean"] == 0.5
    assert figures["all"]["format"]["mean"] == 1.0 and figures["all"]["length"]["mean"] == 4.0


def test_votes_are_boxes_or_else_the_answer_part() -> None:
    assert answer_of(r"<think>a</think>\boxed{12}") == "12"
    assert answer_of("<think>a</think> hello ann ") == "hello ann"
    assert answer_of("<think>never ends") is None


def test_answers_in_format_have_an_accuracy_of_their_own() -> None:
    right, wrong = group("sums", ("a", 1.0), ("b", 0.0)), group("sums", ("c", 0.0), ("d", 0.0))
    rollouts = [
        replace(rollout, verdict=replace(rollout.verdict, components={"accuracy": accuracy, "format": form}))
        for rollout, accuracy, form in zip(
            (*right.rollouts, *wrong.rollouts), (1.0, 0.0, 0.0, 0.0), (1, 0, 0, 0), strict=True
        )
    ]
    groups = [replace(right, rollouts=tuple(rollouts[:2])), replace(wrong, rollouts=tuple(rollouts[2:]))]
    figures = figures_by_source(groups, answer_of, ["format"])["sums"]
    assert figures["accuracy"]["mean"] == 0.25 and figures["format"]["mean"] == 0.25
    assert figures["in format"]["mean"] == 1.0 and figures["in format"]["prompts"] == 1
    assert "in format" not in figures_by_source(groups, answer_of)["sums"], "where nothing says so"
