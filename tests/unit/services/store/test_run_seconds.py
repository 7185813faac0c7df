"""A run's seconds are those of its updates, not of the time between its sessions."""

from __future__ import annotations

from typing import Any

from rayzero.services.store.run_seconds import seconds_of


def test_parts_are_added_up_and_what_is_missing_is_nothing() -> None:
    rows: list[dict[str, Any]] = [
        {"time_s": 10.0, "wait_s": 1.0, "update_s": 2.0, "sync_s": 0.5},
        {"time_s": 90_000.0, "wait_s": 1.0, "hold_s": None},
    ]
    assert seconds_of(rows) == 4.5
    assert seconds_of([]) == 0.0
