"""What happened to a run besides training: who changed what, which workers came and went. Kept in events.jsonl."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.retention import cut_lines

KEPT = 1000
KEPT_WARNINGS = 200


class EventLog:
    """Appends to the run directory's events.jsonl and remembers the latest for the API.

    Warnings are remembered apart: one an update would push out who changed what. Their lines are in metrics.jsonl.
    """

    def __init__(self, file: Path, max_bytes: int | None = None) -> None:
        """Numbers go on from nought in every attempt; the file keeps all attempts, or its last `max_bytes`."""
        self.file = file
        self.max_bytes = max_bytes
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._warnings: deque[dict[str, Any]] = deque(maxlen=KEPT_WARNINGS)
        self._next = 1

    def record(self, event: str, **details: Any) -> dict[str, Any]:
        """Write one down."""
        entry = self._numbered(event, details)
        self._events.append(entry)
        append_lines(self.file, [entry])
        cut_lines(self.file, self.max_bytes)
        return entry

    def warn(self, **details: Any) -> None:
        """Remember a watched figure past its warning limit."""
        self._warnings.append(self._numbered("warning", details))

    def after(self, number: int, limit: int) -> list[dict[str, Any]]:
        """The first `limit` events whose number is higher."""
        return [event for event in _in_order(self._events, self._warnings) if event["number"] > number][:limit]

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The last `limit`, oldest first; of them half are warnings at most, where there is more to tell."""
        room = max(limit // 2, limit - len(self._events))
        warnings = list(self._warnings)[-room:] if room else []
        return _in_order(list(self._events)[len(warnings) - limit :], warnings)

    def _numbered(self, event: str, details: dict[str, Any]) -> dict[str, Any]:
        entry = {"number": self._next, "time_s": time.time(), "event": event, **details}
        self._next += 1
        return entry


def _in_order(*kinds: Any) -> list[dict[str, Any]]:
    return sorted((event for kind in kinds for event in kind), key=lambda event: event["number"])
