"""Replaces a dead learner: starts a new one from the last checkpoint and replays the updates made since.

    call fails ─► a new actor ─► the last checkpoint ─► the batches trained on since, again ─► the call once more

A call that raises the same error in the new one, too, ends the run with it: the process was not to blame.

The batches are those that were recorded, so the policy comes back as it was, bit for bit, and no group is trained on
twice: an update either is part of the policy that came back, or is made once more on the same groups.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from rayzero.services.fleet.calls import Call, LearnerCalls, OnFailure, P, T
from rayzero.services.schema.errors import (
    ActorStartError,
    DeadlineError,
    LearnerRestarted,
    RunDirectoryError,
    TaskFailedError,
    UpdateTorn,
    WorkerError,
)
from rayzero.services.schema.interfaces import LearnerHandle
from rayzero.services.schema.messages import Group, UpdateResult
from rayzero.services.store.checkpoints import latest_checkpoint, version_of
from rayzero.services.store.rollout_file import read_groups

logger = logging.getLogger(__name__)


class LearnerSupervisor(LearnerCalls):
    """A `LearnerHandle`: hands every call to the one that lives, and replaces it when it dies or does not answer."""

    def __init__(
        self,
        spawn: Callable[[], Awaitable[LearnerHandle]],
        checkpoints: Path,
        rollouts: Path,
        max_revivals: int = 6,
        backoff_s: float = 2.0,
    ) -> None:
        """`spawn` returns a fresh learner at version 0; more than `max_revivals` without an update end the run.
        `backoff_s` passes before the second of them and doubles each time: a node that went down with the learner
        must not use them up while Ray still places actors on it."""
        self.spawn, self.checkpoints, self.rollouts = spawn, checkpoints, rollouts
        self.max_revivals, self.backoff_s = max_revivals, backoff_s
        self.revivals = 0
        """Since the run began."""
        self.policy_version = 0
        """What the learner holds, and what a new one is brought to."""
        self._learner: LearnerHandle | None = None
        self._last_batch: tuple[int, Sequence[Group]] = (0, ())
        self._streak = 0
        self._reviving = asyncio.Lock()
        self._closed = False

    async def start(self, checkpoint: Path | None) -> None:
        """Spawn the first learner and load the checkpoint.

        Raises:
            ActorStartError: it cannot start.
            WorkerError: it keeps failing.
        """
        while True:
            learner = self._learner = await self.spawn()
            if checkpoint is None:
                return
            try:
                await learner.load_checkpoint(str(checkpoint))
            except (WorkerError, DeadlineError) as error:
                await self._give_up_on(learner, error)
                continue
            self.policy_version = version_of(checkpoint)
            return

    @property
    def current(self) -> LearnerHandle | None:
        """The learner that lives."""
        return self._learner

    @property
    def pid(self) -> int | None:
        """See `LearnerHandle`."""
        return None if self._learner is None else self._learner.pid

    @property
    def node(self) -> str:
        """See `LearnerHandle`."""
        return "" if self._learner is None else self._learner.node

    async def take(self, call: Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A call of the learner that lives; what its failure means is the table's to say."""
        if call.on_failure is OnFailure.RAISE:
            # Of the learner of now, dead or not: an abort that waited for a new one would end that one's transfer.
            return await call.of(self._started())(*args, **kwargs)
        before = ""
        while True:
            learner = await self._living()
            try:
                return await call.of(learner)(*args, **kwargs)
            except (WorkerError, DeadlineError) as error:
                if isinstance(error, TaskFailedError) and str(error) == before:
                    # Not the process: every further one would be brought back to fail once more.
                    raise TaskFailedError(f"{error}; a new learner failed in the same way") from None
                before = str(error)
                await self._revive(learner, error)
                if call.on_failure is OnFailure.RESTART:
                    raise LearnerRestarted(f"the learner was started anew within a transfer: {error}") from None

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """See `LearnerHandle`. The batch is kept until the next one: a new learner may have to make it again. When it
        raises RunHalted, the learner that lives holds the version before."""
        try:
            result = await self.take(LearnerCalls.update, groups, policy_version)
        except UpdateTorn as torn:
            # Half an update must get into no checkpoint: a new learner holds the version before it.
            await self._revive(self._started(), torn)
            raise
        self.policy_version, self._last_batch, self._streak = policy_version, (policy_version, groups), 0
        return result

    async def load_checkpoint(self, directory: str) -> None:
        """See `LearnerHandle`."""
        await self.take(LearnerCalls.load_checkpoint, directory)
        self.policy_version = version_of(Path(directory))

    async def shutdown(self) -> None:
        """End the learner; a call under way fails instead of starting another."""
        self._closed = True
        if self._learner is not None:
            await self._learner.shutdown()

    async def _living(self) -> LearnerHandle:
        async with self._reviving:
            return self._started()

    def _started(self) -> LearnerHandle:
        if self._learner is None:
            raise WorkerError("the learner has not started")
        return self._learner

    async def _revive(self, failed: LearnerHandle, error: Exception) -> None:
        """Put a learner in the place of one that failed, at the same version.

        Raises:
            WorkerError: it keeps failing, or the run is being ended.
        """
        async with self._reviving:
            # Several calls may fail with one learner; the second finds the new one.
            while self._learner is failed:
                await self._give_up_on(failed, error)
                try:
                    self._learner = await self._restored()
                except (ActorStartError, WorkerError, DeadlineError) as again:
                    error = again

    async def _give_up_on(self, failed: LearnerHandle, error: Exception) -> None:
        """End one that failed, and wait until another may be started. Raises WorkerError when that is enough."""
        self._streak += 1
        if self._closed or self._streak > self.max_revivals:
            raise WorkerError(f"the learner failed {self._streak} times in a row; the last: {error}") from None
        logger.warning("the learner failed and is started anew at version %d: %s", self.policy_version, error)
        self.revivals += 1
        await failed.shutdown()
        if self._streak > 1:
            await asyncio.sleep(self.backoff_s * 2 ** (self._streak - 2))

    async def _restored(self) -> LearnerHandle:
        """A new learner at `policy_version`."""
        learner = await self.spawn()
        try:
            checkpoint = await asyncio.to_thread(latest_checkpoint, self.checkpoints)
            version = 0
            if checkpoint is not None:
                await learner.load_checkpoint(str(checkpoint))
                version = version_of(checkpoint)
            # The recorded batches in their order: the policy comes back bit for bit, and so do the engines' versions.
            for following in range(version + 1, self.policy_version + 1):
                await learner.update(await asyncio.to_thread(self._batch, following), following)
        except BaseException:
            await learner.shutdown()
            raise
        logger.info("the learner is back at version %d, from %s", self.policy_version, checkpoint or "the beginning")
        return learner

    def _batch(self, version: int) -> Sequence[Group]:
        """The groups that made a version. The last ones may not be recorded yet."""
        if version == self._last_batch[0]:
            return self._last_batch[1]
        file = self.rollouts / f"update_{version:06d}.jsonl"
        if not file.is_file():
            raise RunDirectoryError(f"the learner cannot be brought back to version {version}: {file} is missing")
        return read_groups(file)
