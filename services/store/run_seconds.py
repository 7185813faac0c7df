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
