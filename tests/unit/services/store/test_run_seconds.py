"""A run's seconds are those of its updates, not of the time between its sessions."""

from __future__ import annotations

from typing import Any

from rayzero.services.store.run_seconds import seconds_of, update_seconds


def test_parts_are_added_up_and_what_is_missing_is_nothing() -> None:
    rows: list[dict[str, Any]] = [
        {"time_s": 10.0, "wait_s": 1.0, "update_s": 2.0, "sync_s": 0.5},
        {"time_s": 90_000.0, "wait_s": 1.0, "hold_s": None},
    ]
    assert seconds_of(rows) == 4.5
    assert seconds_of([]) == 0.0


def test_an_update_is_timed_by_its_parts_and_by_the_clock_without_them() -> None:
    before = {"update": 1, "time_s": 10.0}
    assert update_seconds({"update": 2, "time_s": 90_000.0, "wait_s": 1.0, "update_s": 2.0}, before) == 3.0
    assert update_seconds({"update": 3, "time_s": 14.0}, before) == 2.0, "of two updates"
    assert update_seconds({"update": 3, "time_s": 14.0}, None) == 0.0
