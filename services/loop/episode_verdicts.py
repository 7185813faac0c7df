"""Verdicts of episodes that need no rubric: of those that an environment failed, and of what a limit ended."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.config.environment import Truncated
from rayzero.services.schema.episodes import EpisodeEnd
from rayzero.services.schema.messages import Completion, Verdict, VerdictStatus

TRUNCATED = frozenset({
    EpisodeEnd.MAX_TURNS, EpisodeEnd.MAX_TOOL_CALLS, EpisodeEnd.MAX_TOKENS, EpisodeEnd.CONTEXT,
    EpisodeEnd.STEP_DEADLINE, EpisodeEnd.EPISODE_DEADLINE,
})  # fmt: skip
"""Ends that a limit made."""

Judge = Callable[[Sequence[Completion]], Awaitable[Sequence[Verdict]]]


async def judged(completions: Sequence[Completion], truncated: Truncated, judge: Judge) -> tuple[Verdict, ...]:
    """One verdict an episode; `judge`, the rubric, is asked for those alone that have none yet."""
    known = [settled(completion, truncated) for completion in completions]
    asked = [completion for completion, verdict in zip(completions, known, strict=True) if verdict is None]
    rest = iter(await judge(asked) if asked else ())
    return tuple(next(rest) if verdict is None else verdict for verdict in known)


def settled(completion: Completion, truncated: Truncated) -> Verdict | None:
    """The verdict of an episode that needs no rubric; None where it needs one."""
    reason = "" if completion.outcome is None else completion.outcome.reason
    if completion.end is EpisodeEnd.ENVIRONMENT_ERROR:
        return _error(ErrorCause.ENVIRONMENT, reason or "the environment failed")
    if completion.end not in TRUNCATED or truncated == "keep":
        return None
    why = f"{completion.end}{f': {reason}' if reason else ''}"
    if truncated == "drop":
        return _error(ErrorCause.TRUNCATED, why)
    return Verdict(
        reward=0.0, components={}, status=VerdictStatus.WRONG, reason=f"truncated, {why}", seconds=0.0, parts={}
    )


def _error(cause: ErrorCause, reason: str) -> Verdict:
    return Verdict(reward=math.nan, components={}, status=VerdictStatus.ERROR, reason=reason, seconds=0.0, cause=cause)
