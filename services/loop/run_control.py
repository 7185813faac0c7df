"""What may be asked of a live run: scale, pause, drain, save, stop. Behind the HTTP API, the commands and the signals.

Every method may be called from any task of the run's event loop; none of them raises for being called twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.controller import Controller
from rayzero.services.schema.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStatus:
    """One slot of a fleet."""

    name: str
    role: str
    """`rollout`, `reward` or `environment`."""
    state: str
    """`starting`, `joining` (up, without the current weights), `serving` or `draining`."""
    seconds_in_state: float
    groups_in_flight: int
    policy_version: int
    """-1: none yet, or a worker that holds no weights."""
    pid: int | None
    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """A live run at one moment; plain data, so that `dataclasses.asdict` makes JSON of it."""

    name: str
    policy_version: int
    num_updates: int
    paused: bool
    stopping: bool
    phases: Mapping[str, float]
    """Phases under way (`wait`, `update`, `sync`, `evaluation`, `checkpoint`) and how many seconds each has been."""
    groups: Mapping[str, int]
    """Live groups by state."""
    dropped_groups: Mapping[str, int]
    """By reason, since the beginning."""
    last_checkpoint: int
    """Version of the last one; -1: none yet."""
    accuracies: Mapping[int, float]
    """Held-out accuracy by version."""
    targets: Mapping[str, int]
    """How many workers each role should have."""
    restarts: Mapping[str, int]
    """Workers (and learners) replaced since the start of this process, by role."""
    workers: tuple[WorkerStatus, ...]


@dataclass(frozen=True, slots=True)
class RunControl:
    """The handle on a live run."""

    controller: Controller

    async def scale(
        self, *, rollout: int | None = None, reward: int | None = None, environment: int | None = None
    ) -> None:
        """Grow or shrink while the run goes on; returns at once, `status` shows how far it is.

        A joining rollout worker loads, is brought to the current weights and then serves; a leaving one finishes its
        groups first.

        Raises:
            UsageError: outside the recipe's bounds; nothing was changed.
        """
        recipe = self.controller.recipe
        if environment is not None and recipe.environment is None:
            raise UsageError("the recipe has no environment: its workers are rollout and reward")
        wanted = (
            ("rollout", rollout, recipe.rollout),
            ("reward", reward, recipe.reward),
            ("environment", environment, recipe.environment),
        )
        for role, number, settings in wanted:
            if number is None or settings is None:
                continue
            if not settings.min_workers <= number <= settings.max_workers:
                raise UsageError(
                    f"{number} {role} workers: the recipe allows {settings.min_workers} to {settings.max_workers} "
                    f"({role}.min_workers, {role}.max_workers)"
                )
        for role, number, _ in wanted:
            if number is not None:
                await self._fleets[role].scale(number)

    async def pause(self) -> None:
        """Start no more groups and no more updates; what is in hand is finished. Returns when nothing moves."""
        await self.controller.pause()

    async def resume(self) -> None:
        """Go on after `pause`."""
        self.controller.resume()

    async def drain(self, worker: str, *, deadline_s: float | None = None) -> None:
        """Let one worker finish its groups and leave, and put a new one in its place; returns when it has left.

        Groups that are not finished within `deadline_s` (0: all; None: as long as a group may take) are handed over to
        the others.

        Raises:
            UsageError: no worker has that name.
        """
        for fleet in self._fleets.values():
            if any(slot.name == worker for slot in fleet.slots):
                await fleet.drain(worker, deadline_s)
                return
        names = ", ".join(slot.name for fleet in self._fleets.values() for slot in fleet.slots)
        raise UsageError(f"no worker is called {worker!r}; there are {names}")

    async def checkpoint(self) -> int:
        """Save now, between two updates; returns the version that was saved."""
        return await self.controller.checkpoint()

    async def stop(self) -> None:
        """Finish the update in hand, save, end the run. The same command goes on from there."""
        self.controller.stop()

    def status(self) -> RunStatus:
        """What the run is doing at this moment."""
        controller, buffer = self.controller, self.controller.buffer
        fleets = self._fleets
        return RunStatus(
            name=controller.recipe.name,
            policy_version=buffer.version,
            num_updates=controller.recipe.training.num_updates,
            paused=controller.paused,
            stopping=controller.stopping,
            phases={phase.value: seconds for phase, seconds in controller.activity.seconds().items()},
            groups=buffer.counts(),
            dropped_groups=buffer.dropped_counts(),
            last_checkpoint=controller.saved_version,
            accuracies=dict(controller.accuracies),
            targets={role: fleet.target for role, fleet in fleets.items()},
            restarts={role: fleet.restarts for role, fleet in fleets.items()}
            | {"learner": controller.learner.revivals},
            workers=tuple(status for role, fleet in fleets.items() for status in _workers(role, fleet)),
        )

    @property
    def _fleets(self) -> dict[str, Fleet[Any]]:
        return {fleet.role: fleet for fleet in self.controller.runner.fleets}


def _workers(role: str, fleet: Fleet[Any]) -> list[WorkerStatus]:
    now = fleet.clock()
    return [
        WorkerStatus(
            name=slot.name,
            role=role,
            state=slot.state.value,
            seconds_in_state=now - slot.since_s,
            groups_in_flight=slot.in_flight,
            policy_version=slot.policy_version,
            pid=slot.pid,
            node=slot.node,
        )
        for slot in fleet.slots
    ]
