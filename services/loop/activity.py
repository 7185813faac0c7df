"""What a run is doing right now, since when: for the status, the stall report and the observers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What the loop itself does. Groups are generated and scored beside it; the group buffer knows which."""

    WAIT = "wait"
    """The learner waits for groups."""
    UPDATE = "update"
    SYNC = "sync"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoint"


@dataclass(slots=True)
class Activity:
    """The phases under way. Several may be: an evaluation or a checkpoint goes on beside the next batch."""

    clock: Callable[[], float] = time.monotonic
    listeners: list[Callable[[Phase], None]] = field(default_factory=list)
    """Called when a phase begins."""
    _since: dict[Phase, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """The phase is under way while the block runs."""
        self._since[phase] = self.clock()
        for listener in self.listeners:
            listener(phase)
        try:
            yield
        finally:
            self._since.pop(phase, None)

    def seconds(self) -> dict[Phase, float]:
        """Every phase under way and how long it has been."""
        now = self.clock()
        return {phase: now - since for phase, since in self._since.items()}
