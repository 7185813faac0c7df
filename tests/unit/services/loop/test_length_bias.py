"""Lengths that are trained on against those that were begun: hand-computed, and in a run that drops what is late."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rayzero.services.loop.length_bias import LengthBias, mean_length
from rayzero.services.schema.causes import DropReason, ErrorCause
from rayzero.services.schema.messages import Completion, GroupCompletions, GroupRequest, Rollout, VerdictStatus
from tests.fakes import FakeRolloutWorker, make_completion, make_group, make_verdict
from tests.simulated_time import run_simulated
from tests.unit.services.loop.kit import make_episode
from tests.unit.services.loop.test_controller import Run


def test_hand_computed() -> None:
    assert math.isnan(mean_length([]))
    assert mean_length([(2, True), (4, True), (6, True)]) == pytest.approx(4.0)
    # One of four is cut off at 2: the three left end at 4, 6, 8 after 1, or 2: S = 1 until 2, 1 until 4, 2/3, 1/3.
    assert mean_length([(2, False), (4, True), (6, True), (8, True)]) == pytest.approx(2 + 2 + 2 * 2 / 3 + 2 / 3)
    # An end and a cut at one length: the end is of all four.
    assert mean_length([(2, False), (2, True), (6, True), (6, True)]) == pytest.approx(2 + 4 * 3 / 4)
    assert mean_length([(3, False)]) == 3.0


def test_cut_off_lengths_are_put_right() -> None:
    """Cut at random, the estimate is that of the whole lengths; a plain mean is far below."""
    rng = np.random.default_rng(0)
    lengths, limits = rng.geometric(0.02, 20000), rng.integers(1, 250, 20000)
    seen = [(int(min(a, b)), bool(a <= b)) for a, b in zip(lengths, limits, strict=True)]
    assert mean_length(seen) == pytest.approx(lengths.mean(), rel=0.03)
    assert np.mean([length for length, _ in seen]) < 0.85 * lengths.mean()


def of_length(number: int, reason: str = "stop") -> Completion:
    return replace(make_completion(num_tokens=number), finish_reason=reason)  # type: ignore[arg-type]


def test_only_what_took_too_long_counts_and_the_warning_comes_once() -> None:
    lengths, warnings = LengthBias(), []
    for _ in range(5):
        group = replace(
            make_group(0), rollouts=tuple(Rollout(completion=of_length(10), verdict=make_verdict()) for _ in range(2))
        )
        lengths.on_drop([of_length(500)], DropReason.UNIFORM_REWARDS)
        lengths.on_drop([of_length(30), of_length(30, "abort")], DropReason.STALE)
        figures, new = lengths.on_update([group])
        warnings += new
    assert figures["completion_tokens_mean_begun"] == pytest.approx((10 + 10 + 30 + 30) / 4)
    assert figures["length_bias"] == pytest.approx(-0.5)
    assert len(warnings) == 1 and "50% shorter (10 tokens)" in warnings[0]


def test_an_episode_is_as_long_as_what_was_sampled_of_it() -> None:
    lengths = LengthBias()
    group = replace(make_group(0), rollouts=(Rollout(completion=of_length(4), verdict=make_verdict()),))
    lengths.on_drop([make_episode("SSOOOOS", (0, 5, "OSSSSS"))], DropReason.STALE)
    figures, _ = lengths.on_update([group])
    assert figures["completion_tokens_mean_begun"] == pytest.approx((4 + 8) / 2)


def test_episodes_that_a_limit_ended_and_the_recipe_drops_count() -> None:
    """They have no verdict, for being long: a batch of the others is shorter than what the policy writes."""
    lengths = LengthBias()
    ended = replace(make_verdict(), status=VerdictStatus.ERROR, reward=math.nan, cause=ErrorCause.TRUNCATED)
    failed = replace(ended, cause=ErrorCause.ENVIRONMENT)
    rollouts = [(4, make_verdict()), (4, make_verdict()), (40, ended), (90, failed)]
    group = replace(
        make_group(0), rollouts=tuple(Rollout(completion=of_length(n), verdict=verdict) for n, verdict in rollouts)
    )
    lengths.on_limit(replace(group, rollouts=(group.rollouts[2], group.rollouts[3])))
    figures, _ = lengths.on_update([group])
    assert figures["completion_tokens_mean_begun"] == pytest.approx((4 + 4 + 40 + 40) / 4)
    assert figures["length_bias"] == pytest.approx(4 / 22 - 1)


@pytest.mark.parametrize(
    ("training", "least", "most"),
    [
        ({"on_stale": "wait"}, -0.02, 0.02),
        ({"on_stale": "drop"}, -0.6, -0.1),
        ({"over_provision": 0.5}, -0.7, -0.1),
    ],
)
def test_a_run_says_what_its_drops_do_to_lengths(training: dict[str, Any], least: float, most: float) -> None:
    """Time goes with length: what is given up is long, and what is left is short."""

    async def main() -> tuple[Run, list[int]]:
        run = Run(num_updates=40, groups_per_update=4, max_staleness=1, **training)
        await run.start()
        drawn: list[int] = []
        for worker in run.workers.values():
            _let_time_go_with_length(worker, drawn)
        await run.controller.run()
        return run, drawn

    run, _ = run_simulated(main())
    late = [row["length_bias"] for row in run.watcher.rows[-10:]]
    assert least <= sum(late) / len(late) <= most
    said = [warning for row in run.watcher.rows for warning in row["warnings"] if "shorter" in warning]
    assert len(said) == (0 if most > 0 else 1)


def _let_time_go_with_length(worker: FakeRolloutWorker, drawn: list[int]) -> None:
    generate = worker.generate

    async def of_drawn_length(request: GroupRequest) -> GroupCompletions:
        length = int(random.Random(request.group_id).lognormvariate(3.0, 1.0)) + 2
        drawn.append(length)
        loop = asyncio.get_running_loop()
        started = loop.time()
        worker.on_generate = lambda _: length * 0.01
        made = await generate(request)
        done = min(length, round((loop.time() - started) / 0.01))
        reason = "stop" if done == length else "abort"
        return replace(made, completions=tuple(of_length_at(each, max(done, 2), reason) for each in made.completions))

    worker.generate = of_drawn_length  # type: ignore[method-assign]


def of_length_at(completion: Completion, number: int, reason: str) -> Completion:
    spans = (replace(completion.version_spans[0], end=number),)
    return replace(of_length(number, reason), version_spans=spans)
