"""The audit finds every group that was lost or doubled, and passes what is sound."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.errors import UsageError
from rayzero.services.store.json_lines import append_lines, read_lines
from rayzero.services.store.ledger import audit, report
from rayzero.services.store.run_directory import RunDirectory, write_json
from tests.fakes import make_group, make_recipe


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A finished run of three updates of two groups; group 2 was dropped."""
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe())
    recorder = Recorder(directory)
    for group_id in range(7):
        recorder.on_ledger("admitted", group_id, version=0, prompt_id=f"train/{group_id}")
    recorder.on_ledger("dropped", 2, version=1, reason="uniform rewards")
    for update, groups in ((1, (0, 1)), (2, (3, 4)), (3, (5, 6))):
        for group_id in groups:
            recorder.on_ledger("trained", group_id, version=update)
        recorder.on_update({"update": update}, [make_group(group_id) for group_id in groups])
    write_json(directory.file("summary.json"), {})
    directory.release()
    return directory


def test_a_sound_run_passes(run: RunDirectory) -> None:
    found = audit(run.path)
    assert found.is_sound and found.finished
    assert (found.updates, found.admitted, found.trained, found.in_flight) == (3, 7, 6, 0)
    assert found.dropped == {"uniform rewards": 1}
    assert report(run.path, as_json=True) == 0


def test_reasons_that_went_on_with_their_detail_are_counted_by_reason(run: RunDirectory) -> None:
    """As ledgers had them before details had a field of their own."""
    text = "failed: generation failed 3 times; the last cause: rollout-0 died: gone"
    change_ledger(run, lambda rows: [row | ({"reason": text} if row["event"] == "dropped" else {}) for row in rows])
    found = audit(run.path)
    assert found.is_sound and found.dropped == {"failed": 1}


def change_ledger(run: RunDirectory, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    file = run.file("ledger.jsonl")
    append_lines(file, change(read_lines(file)), replace=True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda rows: [*rows, {"event": "trained", "group_id": 3, "version": 3}],
            "group 3: admitted, trained, tr",
        ),
        (
            lambda rows: [*rows, {"event": "trained", "group_id": 2, "version": 3}],
            "group 2: admitted, dropped, tr",
        ),
        (lambda rows: [*rows, {"event": "admitted", "group_id": 1, "version": 3}], "group 1: admitted, trained, admi"),
        (lambda rows: [row for row in rows if row["group_id"] != 4], "group 4: never admitted"),
        (lambda rows: rows[:-1], r"groups \[6\] were admitted and never ended"),
        (lambda rows: [row for row in rows if row.get("version") != 2], "ledger and recorded rollouts differ"),
    ],
)
def test_what_was_lost_or_doubled_is_named(run: RunDirectory, change: Any, problem: str) -> None:
    change_ledger(run, change)
    found = audit(run.path)
    assert any(re.search(problem, text) for text in found.problems), found.problems
    assert report(run.path, as_json=False) == 1


def test_an_update_that_is_missing_from_the_metrics_is_named(run: RunDirectory) -> None:
    file = run.file("metrics.jsonl")
    append_lines(file, [row for row in read_lines(file) if row["update"] != 2], replace=True)
    assert any("metrics.jsonl holds updates [1, 3]" in problem for problem in audit(run.path).problems)


def test_an_unfinished_run_may_have_groups_in_flight(run: RunDirectory) -> None:
    run.file("summary.json").unlink()
    change_ledger(run, lambda rows: rows[:-2])
    (run.rollouts / "update_000003.jsonl").unlink()
    append_lines(run.file("metrics.jsonl"), [{"update": 1}, {"update": 2}], replace=True)
    found = audit(run.path)
    assert found.is_sound and found.in_flight == 2


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        audit(tmp_path)
