"""What happened to a run besides training: who changed what, which workers came and went. Kept in events.jsonl."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from rayzero.services.store.json_lines import append_lines

KEPT = 1000


class EventLog:
    """Appends to the run directory's events.jsonl and remembers the latest for the API."""

    def __init__(self, file: Path) -> None:
        """Numbers go on from nought in every attempt; the file keeps all attempts."""
        self.file = file
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._next = 1

    def record(self, event: str, **details: Any) -> dict[str, Any]:
        """Write one down."""
        entry = {"number": self._next, "time_s": time.time(), "event": event, **details}
        self._next += 1
        self._events.append(entry)
        append_lines(self.file, [entry])
        return entry

    def after(self, number: int, limit: int) -> list[dict[str, Any]]:
        """The first `limit` events whose number is higher."""
        return [event for event in self._events if event["number"] > number][:limit]

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The last `limit`, oldest first."""
        return list(self._events)[-limit:]
