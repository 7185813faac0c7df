"""Ray handles behind the Protocols of services/schema/interfaces.py: deadlines, and errors that name who failed.

Every call raises a `RayzeroError`: the actor's own, `TaskFailedError` for any other exception in it,
`WorkerLostError` for a dead actor, or `DeadlineError`. Nothing above this file sees Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rayzero.services.fleet.calls import Call, EnvironmentCalls, LearnerCalls, P, RewardCalls, RolloutCalls, T
from rayzero.services.schema.config.training import DeadlineSettings
from rayzero.services.schema.errors import (
    DeadlineError,
    RayzeroError,
    RunDirectoryError,
    TaskFailedError,
    WorkerLostError,
)

SHUTDOWN_S = 10.0


class RemoteActor:
    """One actor: its name, its handle and the deadlines of its calls."""

    def __init__(self, name: str, handle: Any, deadlines: DeadlineSettings) -> None:
        """`name` is what errors, logs and the stall report call it."""
        self.name = name
        self.handle = handle
        self.deadlines = deadlines
        self.pid: int | None = None
        """Of the actor's process, once it is placed."""
        self.node = ""
        """Ray's id of the node it lives on."""
        self.release: Callable[[], None] | None = None
        """Gives its GPUs back."""

    def __reduce__(self) -> tuple[type[RemoteActor], tuple[Any, ...]]:
        """What another actor calls it through. Who started it alone gives its GPUs back."""
        return type(self), (self.name, self.handle, self.deadlines)

    async def take(self, call: Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call of the actor's table, bounded by its own deadline."""
        deadline_s: float = getattr(self.deadlines, call.deadline) + call.grace_s
        result: T = await self.call(call.name, *args, deadline_s=deadline_s, **kwargs)
        return result

    async def call(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> Any:
        """One call, bounded. A call that ran out is cancelled, so that an async actor stops working on it."""
        reference = getattr(self.handle, method).remote(*args, **kwargs)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(reference.future()), deadline_s)
        except TimeoutError:
            ray.cancel(reference)
            raise DeadlineError(f"{self.name} did not finish {method} within {deadline_s:g} s") from None
        except asyncio.CancelledError:
            ray.cancel(reference)
            raise
        except RayTaskError as error:
            raise _own_error(error.cause, f"{self.name} failed in {method}") from None
        except RayError as error:
            raise WorkerLostError(f"{self.name} died during {method}: {_first_line(error)}") from None

    async def shutdown(self) -> None:
        """Let it clean up, then end its process; a dead or hanging one is killed all the same."""
        with contextlib.suppress(RayzeroError):
            await self.call("shutdown", deadline_s=SHUTDOWN_S)
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self.handle)
        release, self.release = self.release, None
        if release is not None:
            release()


async def in_object_store(value: Any) -> Any:
    """A reference that stands for `value` in calls; off the event loop, for a batch takes a while to be written."""
    return await asyncio.to_thread(ray.put, value)


class RemoteRolloutWorker(RolloutCalls, RemoteActor):
    """A `RolloutWorker` on Ray."""

    metrics_target = ""
    """`host:port` of its engine's own metrics, for Prometheus."""


class RemoteRewardWorker(RewardCalls, RemoteActor):
    """A `RewardWorker` on Ray."""


class RemoteEnvironmentWorker(EnvironmentCalls, RemoteActor):
    """An `EnvironmentWorker` on Ray."""


class RemoteLearner(LearnerCalls, RemoteActor):
    """A `LearnerHandle` on Ray, or one rank of it."""

    revivals = 0
    """An actor has one life: services/fleet/learner_supervisor.py starts others."""


def _own_error(cause: BaseException, what: str) -> RayzeroError:
    """The actor's own error as it was raised; anything else becomes a TaskFailedError with its type and reason."""
    if isinstance(cause, RayzeroError):
        return cause
    if isinstance(cause, OSError) and cause.filename:
        return RunDirectoryError(f"{what}: {cause.filename}: {cause.strerror}")
    return TaskFailedError(f"{what}: {type(cause).__name__}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    """With the next one where the first announces it: `GenerationConfig is invalid:` alone says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return text[:500] or type(error).__name__
