"""Ray handles behind the Protocols of services/schema/interfaces.py: deadlines, and errors that name who failed.

Every call raises a `RayzeroError`: the actor's own, or `WorkerError` for a dead actor and any other exception in it,
or `DeadlineError`. Nothing above this file sees Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError

from services.schema.config.training import DeadlineSettings
from services.schema.errors import DeadlineError, RayzeroError, RunDirectoryError, WorkerError, WorkerLostError
from services.schema.messages import (
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    Rendezvous,
    UpdateResult,
    Verdict,
    WeightManifest,
    WeightReceipt,
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
        """Gives its GPUs to whoever comes after it."""

    async def call(self, method: str, *args: Any, deadline_s: float) -> Any:
        """One call, bounded. A call that ran out is cancelled, so that an async actor stops working on it."""
        reference = getattr(self.handle, method).remote(*args)
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


class RemoteRolloutWorker(RemoteActor):
    """A `RolloutWorker` on Ray."""

    metrics_target = ""
    """`host:port` of its engine's own metrics, for Prometheus."""

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        """See `RolloutWorker`."""
        completions: GroupCompletions = await self.call("generate", request, deadline_s=self.deadlines.group_s)
        return completions

    async def abort(self, group_id: int) -> None:
        """See `RolloutWorker`."""
        await self.call("abort", group_id, deadline_s=self.deadlines.sync_s)

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `RolloutWorker`."""
        values: NDArray[np.float32] = await self.call(
            "logprobs", prompt_token_ids, token_ids, deadline_s=self.deadlines.group_s
        )
        return values

    async def join_transfer(self, rendezvous: Rendezvous, rank: int) -> None:
        """See `RolloutWorker`."""
        await self.call("join_transfer", rendezvous, rank, deadline_s=self.deadlines.sync_s)

    async def receive_weights(self, manifest: WeightManifest) -> None:
        """See `RolloutWorker`."""
        await self.call("receive_weights", manifest, deadline_s=self.deadlines.sync_s)

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        """See `RolloutWorker`."""
        receipt: WeightReceipt = await self.call("apply_weights", policy_version, deadline_s=self.deadlines.sync_s)
        return receipt

    async def sleep(self) -> None:
        """See `RolloutWorker`."""
        await self.call("sleep", deadline_s=self.deadlines.sync_s)

    async def wake(self) -> None:
        """See `RolloutWorker`."""
        await self.call("wake", deadline_s=self.deadlines.sync_s)


class RemoteRewardWorker(RemoteActor):
    """A `RewardWorker` on Ray."""

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        """See `RewardWorker`."""
        verdicts: tuple[Verdict, ...] = await self.call(
            "score", prompt, prompt_text, tuple(completions), deadline_s=self.deadlines.score_s
        )
        return verdicts


class RemoteLearner(RemoteActor):
    """A `Learner` on Ray."""

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """See `Learner`."""
        result: UpdateResult = await self.call(
            "update", list(groups), policy_version, deadline_s=self.deadlines.update_s
        )
        return result

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Learner`."""
        values: NDArray[np.float32] = await self.call(
            "logprobs", prompt_token_ids, token_ids, deadline_s=self.deadlines.update_s
        )
        return values

    async def sft_step(self, examples: Sequence[tuple[Any, Any]], learning_rate: float) -> dict[str, float]:
        """One supervised step on (prompt tokens, completion tokens) pairs."""
        figures: dict[str, float] = await self.call(
            "sft_step", list(examples), learning_rate, deadline_s=self.deadlines.update_s
        )
        return figures

    async def end_sft(self) -> None:
        """Fresh optimizer moments, and the policy of now as the reference."""
        await self.call("end_sft", deadline_s=self.deadlines.update_s)

    async def open_transfer(self, num_receivers: int) -> Rendezvous:
        """See `Learner`."""
        rendezvous: Rendezvous = await self.call("open_transfer", num_receivers, deadline_s=self.deadlines.sync_s)
        return rendezvous

    async def accept_transfer(self) -> None:
        """See `Learner`."""
        await self.call("accept_transfer", deadline_s=self.deadlines.sync_s)

    async def abort_transfer(self) -> None:
        """See `Learner`."""
        await self.call("abort_transfer", deadline_s=self.deadlines.sync_s)

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        """See `Learner`."""
        manifest: WeightManifest = await self.call("prepare_weights", policy_version, deadline_s=self.deadlines.sync_s)
        return manifest

    async def broadcast_weights(self) -> None:
        """See `Learner`."""
        await self.call("broadcast_weights", deadline_s=self.deadlines.sync_s)

    async def save_checkpoint(self, directory: str) -> None:
        """See `Learner`."""
        await self.call("save_checkpoint", directory, deadline_s=self.deadlines.checkpoint_s)

    async def load_checkpoint(self, directory: str) -> None:
        """See `Learner`."""
        await self.call("load_checkpoint", directory, deadline_s=self.deadlines.checkpoint_s)


def _own_error(cause: BaseException, what: str) -> RayzeroError:
    """The actor's own error as it was raised; anything else becomes a WorkerError with its type and first line."""
    if isinstance(cause, RayzeroError):
        return cause
    if isinstance(cause, OSError) and cause.filename:
        return RunDirectoryError(f"{what}: {cause.filename}: {cause.strerror}")
    return WorkerError(f"{what}: {type(cause).__name__}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__
