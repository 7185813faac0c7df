"""What every reward speaks: a case goes in, a score comes out.

Prompt + Completion -> Case -> Reward -> Score -> rubric -> Verdict
"""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.episodes import EpisodeOutcome
from rayzero.services.schema.messages import Prompt, VerdictStatus
from rayzero.services.schema.plain import is_finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
INLINE_CHARS = 20_000
"""Up to so much text is judged in a few milliseconds."""
MAX_REASON_CHARS = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One completion as a reward sees it.

    Example: `Case(prompt=prompt, text="<think>8 + 1</think>\\boxed{9}", prompt_text="What comes after 8?")`.
    """

    prompt: Prompt
    text: str
    """The completion, without what the prompt already said."""
    prompt_text: str = ""
    """The rendered prompt: tells whether it already ended in <think>."""
    num_tokens: int | None = None
    """Sampled tokens; None where only text is known (`rayzero grade`)."""
    token_ids: Sequence[int] | NDArray[np.int32] = ()
    finish_reason: str = ""
    outcome: EpisodeOutcome | None = None
    """How an episode went, as its environment saw it; None: it is none."""
    policy_version: int = 0
    """Of its newest token."""

    @property
    def prefilled(self) -> bool:
        """The prompt already ended in <think>: the completion starts inside the thought."""
        return self.prompt_text.rstrip().endswith(THINK_OPEN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What one reward says of one completion, before weights and gates.

    Example: `Score(value=1.0, status=VerdictStatus.CORRECT, reason="42 equals 42")`. Use `scored` and `failed`.
    """

    value: float | None
    """None: the reward does not apply to this completion and leaves the sum. NaN exactly when status is `error`."""
    status: VerdictStatus
    """`correct` exactly when the value is the best that the reward can give."""
    reason: str = ""
    cause: ErrorCause | None = None
    """Of an error; None for what is none."""
    seconds: float = 0.0
    tests: tuple[Mapping[str, Any], ...] = ()
    """Per-test results of a code reward."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further figures of the call that scored it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the reward says of the completion besides, as JSON can hold it."""

    @property
    def is_error(self) -> bool:
        """No verdict was reached, for reasons that lie outside the completion."""
        return self.status is VerdictStatus.ERROR


def as_reason(text: str) -> str:
    """What a program, a server or a row said, as one may write it down: valid Unicode of bounded length."""
    return text[:MAX_REASON_CHARS].encode(errors="backslashreplace").decode()


def scored(value: float | None, *, full: float = 1.0, reason: str = "", **fields: Any) -> Score:
    """A score that was reached; `full` is the best that this reward can give. A NaN is an error, never a number."""
    reason = as_reason(reason)
    if value is None:
        return Score(value=None, status=VerdictStatus.WRONG, reason=reason or "does not apply", **fields)
    if not is_finite(value):
        return failed(ErrorCause.NOT_FINITE, f"the reward returned {value!s:.40}", **fields)
    status = VerdictStatus.CORRECT if value >= full else VerdictStatus.WRONG
    return Score(value=float(value), status=status, reason=reason, **fields)


def failed(cause: ErrorCause, reason: str, **fields: Any) -> Score:
    """A score that could not be reached, counted under `cause`."""
    return Score(value=math.nan, status=VerdictStatus.ERROR, cause=cause, reason=as_reason(reason), **fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a reward may know besides its cases."""

    earlier: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    """Scores, by name and in the order of the cases, of the components that this one is built on."""
    deadline: float | None = None
    """Event-loop time by which every case needs a score; what is not done by then is a `queue` error."""


class Reward(Protocol):
    """Scores the completions of one prompt.

    Never raises for what a completion holds: whatever goes wrong with one case is that case's error score, so that
    its neighbours keep theirs.
    """

    async def start(self) -> None:
        """Make ready and prove it, so that what can never work is refused before training. Raises ActorStartError."""
        ...

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case, in order."""
        ...

    async def close(self) -> None:
        """End everything it started."""
        ...


class PureReward(ABC):
    """Base of rewards that are a quick, linear function of one case: no process, no network, nothing to end."""

    async def start(self) -> None:  # noqa: B027  most have nothing to start or to end
        """Nothing to start."""

    @abstractmethod
    def judge(self, case: Case) -> Score:
        """The score of one case."""

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case, in order. Long texts are judged in a thread: this event loop also keeps deadlines."""
        if sum(len(case.text) for case in cases) > INLINE_CHARS:
            return await asyncio.to_thread(self._judge_all, cases)
        return self._judge_all(cases)

    async def close(self) -> None:  # noqa: B027
        """Nothing to end."""

    def _judge_all(self, cases: Sequence[Case]) -> list[Score]:
        scores: list[Score] = []
        for case in cases:
            started = time.perf_counter()
            try:
                score = self.judge(case)
            except Exception as error:
                score = failed(ErrorCause.EXCEPTION, f"{type(error).__name__}: {error}")
            scores.append(replace(score, seconds=time.perf_counter() - started))
        return scores


async def score_each(
    cases: Sequence[Case], judge: Callable[[Case], Awaitable[Score]], deadline: float | None
) -> list[Score]:
    """Score the cases side by side; what raises or is not done at the deadline is an error of that case alone."""

    async def one(case: Case) -> Score:
        started = time.perf_counter()
        try:
            score = await judge(case)
        except Exception as error:
            score = failed(ErrorCause.EXCEPTION, f"{type(error).__name__}: {error}")
        return score if score.seconds else replace(score, seconds=time.perf_counter() - started)

    if len(cases) <= 1 and deadline is None:
        return [await one(case) for case in cases]
    tasks = [asyncio.create_task(one(case)) for case in cases]
    try:
        timeout = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait(tasks, timeout=timeout)
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    late = failed(ErrorCause.QUEUE, "no turn before the deadline of its group")
    return [late if task.cancelled() else task.result() for task in tasks]


async def score_distinct(
    cases: Sequence[Case],
    key: Callable[[Case], Hashable],
    judge: Callable[[Case], Awaitable[Score]],
    deadline: float | None,
) -> list[Score]:
    """As `score_each`, but cases with equal keys are judged once and share the score."""
    if len(cases) == 1:
        return await score_each(cases, judge, deadline)
    keys = [_key_or_own(key, case) for case in cases]
    distinct = dict(zip(keys, cases, strict=True))
    scores = await score_each(list(distinct.values()), judge, deadline)
    by_key = dict(zip(distinct, scores, strict=True))
    return [by_key[each] for each in keys]


def _key_or_own(key: Callable[[Case], Hashable], case: Case) -> Hashable:
    """A case whose key cannot be made (a row holds what JSON cannot spell) is judged alone."""
    try:
        return key(case)
    except Exception:
        return object()
