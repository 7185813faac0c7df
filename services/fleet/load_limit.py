"""How many groups one engine may hold: a limit that follows its load. services/fleet/lease_queue.py keeps to it.

Additive increase, multiplicative decrease (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
Congestion Avoidance", 1989): one group more after a round in which the limit was used up and nothing waited, a tenth
less after one in which completions waited inside the engine, were pushed out, or filled its memory. What waits here
instead of there goes to whichever engine is free first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rayzero.services.schema.messages import RolloutStats

BACKOFF = 0.9
"""Gentle: an engine with too few groups is idle for as long as its completions take."""

FULL_KV = 0.95
"""Share of the memory for keys and values beyond which the next tokens push a running completion out."""


@dataclass(slots=True)
class LoadLimit:
    """Between 1 and `ceiling`, where it begins: a worker that never reports its load keeps the ceiling.

    Not part of a checkpoint: a run that goes on has new engines, whose load is not known yet.
    """

    ceiling: int
    value: int = field(init=False)
    num_waiting: int = 0
    """Completions that waited inside the engine, at the last report."""
    kv_use: float = 0.0
    """0 … 1, at the last report."""
    _preemptions: int = 0
    _round: int = 0
    """Groups that were begun before the last change and have not come back: they say nothing of the new value."""

    def __post_init__(self) -> None:
        """Begin at the ceiling."""
        self.value = self.ceiling

    def note(self, stats: RolloutStats, in_flight: int) -> None:
        """A group came back, the engine is as loaded as `stats` says; `in_flight` groups were at it, this one too."""
        pushed_out = stats.preemptions > self._preemptions
        self._preemptions, self.num_waiting, self.kv_use = stats.preemptions, stats.num_waiting, stats.kv_cache_usage
        if self._round > 0:
            self._round -= 1
        elif pushed_out or self.num_waiting > 0 or self.kv_use > FULL_KV:
            self._change(max(1, int(self.value * BACKOFF)), in_flight)
        elif in_flight >= self.value:
            self._change(min(self.ceiling, self.value + 1), in_flight)

    def _change(self, value: int, in_flight: int) -> None:
        if value != self.value:
            self.value, self._round = value, in_flight - 1
