"""Tokens a second are those of the updates' own seconds, not of the time that a run was dead."""

from __future__ import annotations

from typing import Any

from rayzero.services.observe.api.views import tokens_per_s


def rows(*times: float, **parts: float) -> list[dict[str, Any]]:
    return [
        {"update": update, "completion_tokens": 1400.0, "time_s": time_s, **parts}
        for update, time_s in enumerate(times, 1)
    ]


def test_a_window_does_not_span_the_time_between_two_sessions() -> None:
    assert tokens_per_s(rows(2.0, 4.0, 6.0, 90.0, 92.0, wait_s=1.5, update_s=0.4, sync_s=0.1)) == 700.0


def test_rows_without_parts_are_timed_by_the_clock() -> None:
    assert tokens_per_s(rows(2.0, 4.0, 6.0)) == 700.0
    assert tokens_per_s(rows(2.0)) is None and tokens_per_s([]) is None
