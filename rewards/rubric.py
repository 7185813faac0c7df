"""A rubric: named rewards with weights and gates, composed into one verdict.

    reward = Σ weight × score over the components whose gates are open and that apply

The verdict is `correct` exactly when every component with a weight gave its full score; it is `error` when a component
that the reward needs could not be scored: the reward is then NaN, never 0.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayzero.rewards.base import Case, Context, Reward, Score, as_reason, failed
from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import Verdict, VerdictStatus

GRACE_S = 1.0
"""How long after the deadline a component may take to say which cases it did not finish."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RubricComponent:
    """One component of a rubric, ready to score."""

    reward: Reward
    weight: float = 1.0
    gates: tuple[str, ...] = ()
    """It counts only where all of these gave their full score. What does not apply does not close a gate."""
    requires: tuple[str, ...] = ()
    """Components whose scores it is built on."""


class Rubric:
    """Scores completions with every component, side by side, and composes the verdicts."""

    def __init__(self, parts: Mapping[str, RubricComponent]) -> None:
        self.parts = dict(parts)

    async def start(self) -> None:
        """Make every component ready. Raises ActorStartError, naming the component."""
        for name, part in self.parts.items():
            try:
                await part.reward.start()
            except ActorStartError as error:
                raise ActorStartError(f"reward component {name}: {error}") from None

    async def judge(self, cases: Sequence[Case], deadline_s: float | None = None) -> list[Verdict]:
        """One verdict a case, in order. A component that is not done after `deadline_s` is an error, others stand."""
        deadline = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        running: dict[str, asyncio.Task[list[Score]]] = {}

        async def score(part: RubricComponent) -> list[Score]:
            await asyncio.wait([running[needed] for needed in part.requires])
            earlier = {needed: _outcome(running[needed], len(cases)) for needed in part.requires}
            return await part.reward.score(cases, Context(earlier=earlier, deadline=deadline))

        for name, part in self.parts.items():
            work = score(part) if part.requires else part.reward.score(cases, Context(deadline=deadline))
            running[name] = asyncio.create_task(work, name=name)
        try:
            await asyncio.wait(running.values(), timeout=None if deadline_s is None else deadline_s + GRACE_S)
        finally:
            for task in running.values():
                task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        scores = {name: _outcome(task, len(cases)) for name, task in running.items()}
        rows = ({name: column[row] for name, column in scores.items()} for row in range(len(cases)))
        return [compose(self.parts, row) for row in rows]

    async def close(self) -> None:
        """End what the components have started."""
        rewards = {id(part.reward): part.reward for part in self.parts.values()}
        await asyncio.gather(*(reward.close() for reward in rewards.values()))


def compose(parts: Mapping[str, RubricComponent], scores: Mapping[str, Score]) -> Verdict:
    """One verdict from the scores of all components of one completion; its seconds are those of the slowest."""
    reward, num_counted, full = 0.0, 0, True
    errors: list[str] = []
    cause: ErrorCause | None = None
    closed: list[str] = []
    counted: dict[str, tuple[float, float]] = {}
    for name, part in parts.items():
        score = scores[name]
        shut = [gate for gate in part.gates if not _opens(scores[gate])]
        unknown = [gate for gate in shut if scores[gate].is_error]
        if shut and not unknown:
            closed.append(name)
            counted |= {name: (part.weight, 0.0)} if part.weight else {}
            full = full and part.weight == 0
            continue
        if part.weight == 0:
            continue
        culprit = unknown[0] if unknown else name
        if scores[culprit].is_error:
            errors.append(_blame(culprit, scores[culprit]))
            cause = cause or scores[culprit].cause
        elif score.value is not None:
            reward += part.weight * score.value
            counted[name] = (part.weight, score.value)
            num_counted += 1
            full = full and score.status is VerdictStatus.CORRECT
    if not errors and not num_counted and not closed:
        cause = ErrorCause.NOTHING_APPLIES
        errors.append(f"{cause}: no component of the rubric applies to this completion")
    components = {name: score.value for name, score in scores.items() if score.value is not None and not score.is_error}
    components |= {f"{name}/{key}": value for name, score in scores.items() for key, value in score.metrics.items()}
    status = VerdictStatus.ERROR if errors else VerdictStatus.CORRECT if full else VerdictStatus.WRONG
    return Verdict(
        reward=math.nan if errors else reward,
        components=components,
        status=status,
        reason=as_reason("; ".join(dict.fromkeys(errors)) if errors else _reason(scores, closed)),
        seconds=max(score.seconds for score in scores.values()),
        tests=next((score.tests for score in scores.values() if score.tests), ()),
        cause=cause,
        parts=None if errors else counted,
        extra={f"{name}/{key}": value for name, score in scores.items() for key, value in score.extra.items()},
    )


def _opens(score: Score) -> bool:
    return score.status is VerdictStatus.CORRECT or (score.value is None and not score.is_error)


def _blame(name: str, score: Score) -> str:
    return f"{score.cause}: {name}: {score.reason}"


def _reason(scores: Mapping[str, Score], closed: Sequence[str]) -> str:
    return "; ".join(
        f"{name}: {score.reason or _value(score)}{' (gate closed)' if name in closed else ''}"
        for name, score in scores.items()
    )


def _value(score: Score) -> str:
    return "does not apply" if score.value is None else f"{score.value:.3g}"


def _outcome(task: asyncio.Task[list[Score]], num_cases: int) -> list[Score]:
    """A component's scores; what went wrong with all of it at once is an error of each case."""
    if task.cancelled():
        return [failed(ErrorCause.QUEUE, "no score before the deadline of its group")] * num_cases
    error = task.exception()
    if error is not None:
        return [failed(ErrorCause.EXCEPTION, f"{type(error).__name__}: {error}")] * num_cases
    scores = task.result()
    if len(scores) != num_cases:
        return [failed(ErrorCause.EXCEPTION, f"{len(scores)} scores for {num_cases} completions")] * num_cases
    return scores
