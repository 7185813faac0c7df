"""One place in a fleet, the worker that has it, and where that worker is in its life."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from rayzero.services.fleet.load_limit import LoadLimit
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.interfaces import Worker

W = TypeVar("W", bound=Worker)


class SlotState(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    JOINING = "joining"
    SERVING = "serving"
    DRAINING = "draining"
    GONE = "gone"
    """Out of its slot: dead, or on its way out."""


_SERVING = SlotState.SERVING
"""An enumeration's member takes longer to look up than to compare, and leases ask for it all the time."""


@dataclass(slots=True, eq=False)
class WorkerSlot(Generic[W]):
    """One place in the fleet and the worker that has it."""

    name: str
    number: int = 0
    """How many slots there were before it."""
    worker: W | None = None
    state: SlotState = SlotState.STARTING
    in_flight: int = 0
    limit: LoadLimit = field(default_factory=lambda: LoadLimit(1))
    """How many leases it may hold at a time."""
    policy_version: int = -1
    since_s: float = 0.0
    """When it came into its state."""
    filling: asyncio.Task[Any] | None = None
    """Brings the first worker up; ended when the slot is given up before."""

    @property
    def live_worker(self) -> W:
        """The worker in the slot, where there must be one."""
        if self.worker is None:
            raise WorkerError(f"{self.name} has not started")
        return self.worker

    @property
    def pid(self) -> int | None:
        """Of its worker's process; None while there is none."""
        return None if self.worker is None else self.worker.pid

    @property
    def node(self) -> str:
        """Ray's id of the node its worker lives on; empty while there is none."""
        return "" if self.worker is None else self.worker.node

    @property
    def has_capacity(self) -> bool:
        """Whether it may be given one lease more."""
        return self.state is _SERVING and self.in_flight < self.limit.value

    @property
    def load(self) -> tuple[float, float, int]:
        """Who is to have the next lease, lowest first: share of the limit in use, memory in use, seniority."""
        return self.in_flight / self.limit.value, self.limit.kv_use, self.number
