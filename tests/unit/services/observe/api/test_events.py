"""Who changed what is not pushed out by a warning an update."""

from __future__ import annotations

from pathlib import Path

from rayzero.services.observe.api.events import KEPT, EventLog
from rayzero.services.store.json_lines import read_lines


def test_warnings_push_no_change_out_of_what_is_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for worker in range(6):
        log.record("drain", worker=worker)
    for update in range(2 * KEPT):
        log.warn(update=update, text="the gradient is large")
    shown = [event["event"] for event in log.latest(8)]
    assert shown == ["drain"] * 4 + ["warning"] * 4
    assert [event["worker"] for event in log.after(0, 2 * KEPT) if event["event"] == "drain"] == [0, 1, 2, 3, 4, 5]
    assert len(read_lines(tmp_path / "events.jsonl")) == 6, "one line a change; the warnings are in metrics.jsonl"


def test_the_latest_are_in_order_whatever_there_is(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    assert log.latest(8) == []
    log.warn(update=1, text="a")
    log.record("scale")
    log.warn(update=2, text="b")
    assert [event["number"] for event in log.latest(8)] == [1, 2, 3] and len(log.latest(1)) == 1
    assert [event["number"] for event in log.after(1, 1)] == [2]
