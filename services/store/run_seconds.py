"""How long a run took: of every update what it waited, computed and synced, whatever lay between its sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rayzero.services.schema.plain import is_figure

PARTS = ("wait_s", "update_s", "hold_s", "sync_s")
"""Of a row of metrics.jsonl, one after the other."""


def seconds_of(rows: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of the updates of these rows."""
    return sum(float(row[part]) for row in rows for part in PARTS if is_figure(row.get(part)))


def update_seconds(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> float:
    """What an update took by its own parts; by the clock since the row before where it has none."""
    if before is None or any(name in row for name in PARTS):
        return seconds_of([row])
    return max(0.0, float(row["time_s"]) - float(before["time_s"])) / max(1, int(row["update"]) - int(before["update"]))
