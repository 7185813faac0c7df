"""Writes a run down: metrics, evaluations, every rollout, the ledger. One JSON object a line, whole lines only."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.messages import Group
from rayzero.services.store.json_lines import append_lines, read_lines
from rayzero.services.store.retention import Retention
from rayzero.services.store.rollout_file import rollout_lines
from rayzero.services.store.run_directory import RunDirectory


class Recorder:
    """An observer of the controller. Everything is flushed when the call returns: a kill loses no finished line."""

    def __init__(self, directory: RunDirectory, retention: Retention | None = None) -> None:
        """Appends to what the directory holds. Without `retention` all of it is kept."""
        self.directory = directory
        self.retention = retention

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """A line in metrics.jsonl, and the batch's rollouts in a file of their own."""
        file = self.directory.rollouts / f"update_{row['update']:06d}.jsonl"
        append_lines(file, [line for group in groups for line in rollout_lines(group)], replace=True)
        append_lines(self.directory.file("metrics.jsonl"), [row])
        if self.retention is not None:
            self.retention.apply()

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """A line in evaluations.jsonl, and the held-out rollouts in a file of their own."""
        file = self.directory.rollouts / f"evaluation_{evaluation.policy_version:06d}.jsonl"
        append_lines(file, [line for group in evaluation.groups for line in rollout_lines(group)], replace=True)
        append_lines(self.directory.file("evaluations.jsonl"), [evaluation.row()])

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """Rollouts that were paid for and not trained on are kept too, with the reason."""
        lines = [{**line, "dropped": reason.value} for line in rollout_lines(group)]
        append_lines(self.directory.rollouts / "dropped.jsonl", lines)

    def on_ledger(self, event: str, group_id: int, **details: Any) -> None:
        """A group was admitted, trained on or dropped."""
        append_lines(self.directory.file("ledger.jsonl"), [{"event": event, "group_id": group_id, **details}])

    def roll_back(self, policy_version: int, next_group_id: int, live: Container[int] = ()) -> None:
        """Forget what came after a checkpoint: a resumed run writes those lines again, once.

        `live` are the groups that the checkpoint holds: whatever ended them since has not happened.
        """

        def stands(row: dict[str, Any]) -> bool:
            ended = row.get("event") != "admitted"
            group_id = row.get("group_id", next_group_id)
            return bool(group_id < next_group_id and not (ended and group_id in live))

        for name in ("metrics.jsonl", "evaluations.jsonl"):
            _keep(self.directory.file(name), lambda row: bool(row.get("update", 0) <= policy_version))
        _keep(self.directory.file("ledger.jsonl"), stands)
        _keep(self.directory.rollouts / "dropped.jsonl", stands)


def _keep(file: Path, stands: Callable[[dict[str, Any]], bool]) -> None:
    if file.is_file():
        append_lines(file, [row for row in read_lines(file) if stands(row)], replace=True)
