"""What a run directory keeps: the newest rollouts, the ends of logs and of events.jsonl, as the recipe says."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayzero.services.schema.config.observe import RetentionSettings
from rayzero.services.schema.errors import RunDirectoryError
from rayzero.services.store.checkpoints import checkpoints_in, version_of
from rayzero.services.store.json_lines import replace_file
from rayzero.services.store.run_directory import RunDirectory, write_json

logger = logging.getLogger(__name__)

REMOVED_FILE = "removed.json"
DROPPED_FILE = "dropped.jsonl"
FIRST_EVALUATION = "evaluation_000000.jsonl"
"""The model as it was: a run's report ends with it."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Of one run directory. `apply` is called after every update."""

    directory: RunDirectory
    settings: RetentionSettings

    def apply(self) -> None:
        """Remove what is too old or too much. What cannot be removed is logged, and ends no run."""
        try:
            if self.settings.rollout_updates is not None or self.settings.rollout_bytes is not None:
                self._remove_rollouts()
            if self.settings.log_bytes is not None:
                self._cut_logs(self.settings.log_bytes)
        except (OSError, RunDirectoryError) as error:
            logger.warning("observe.retention: %s", error)

    def _remove_rollouts(self) -> None:
        """The oldest first. A checkpoint that is damaged is passed over for the one before: what came after the oldest
        of them must be there to be made again."""
        checkpoints = checkpoints_in(self.directory.checkpoints)
        if not checkpoints:
            return
        needed_from = version_of(checkpoints[0]) + 1
        files = sorted(_numbered(self.directory.rollouts), key=lambda item: item[0])
        newest = files[-1][0] if files else 0
        sizes = {file: file.stat().st_size for _, file in files}
        dropped = self.directory.rollouts / DROPPED_FILE
        total = sum(sizes.values()) + (dropped.stat().st_size if dropped.is_file() else 0)
        removed = 0
        for update, file in files:
            if update >= needed_from or not self._is_too_much(newest - update, total):
                break
            if file.name != FIRST_EVALUATION:
                if file.name.startswith("update_"):
                    _note_removed(self.directory.rollouts, update)  # first: an audit knows of a file that is gone
                file.unlink()
                total -= sizes[file]
                removed = update
        if removed:
            _cut_dropped(dropped, removed)

    def _is_too_much(self, age: int, total: int) -> bool:
        updates, size = self.settings.rollout_updates, self.settings.rollout_bytes
        return (updates is not None and age >= updates) or (size is not None and total > size)

    def _cut_logs(self, limit: int) -> None:
        sizes = {file: file.stat().st_size for file in self.directory.logs.glob("*.log")}
        while sum(sizes.values()) > limit:
            largest = max(sizes, key=lambda file: sizes[file])
            _halve(largest)
            sizes[largest] = min(largest.stat().st_size, sizes[largest] // 2)


def removed_through(rollouts: Path) -> int:
    """The last update whose rollouts were removed; 0: none."""
    file = rollouts / REMOVED_FILE
    return int(json.loads(file.read_text(encoding="utf-8"))["through_update"]) if file.is_file() else 0


def cut_lines(file: Path, max_bytes: int | None) -> None:
    """Leave the last whole lines that have half of `max_bytes`, where there are more than all of it."""
    if max_bytes is None or not file.is_file() or file.stat().st_size <= max_bytes:
        return
    with open(file, "rb") as stream:
        stream.seek(-(max_bytes // 2), os.SEEK_END)
        stream.readline()
        replace_file(file, stream.read())


def _numbered(rollouts: Path) -> list[tuple[int, Path]]:
    parts = ((file.stem.partition("_")[2], file) for file in rollouts.glob("*_*.jsonl"))
    return [(int(number), file) for number, file in parts if number.isdecimal()]


def _note_removed(rollouts: Path, update: int) -> None:
    write_json(rollouts / REMOVED_FILE, {"through_update": max(update, removed_through(rollouts))})


def _cut_dropped(file: Path, removed: int) -> None:
    """Without the groups that were sampled from versions whose updates are gone; they are in the order of time."""
    if not file.is_file():
        return
    with open(file, "rb") as stream:
        for line in stream:
            if _newest_version(line) >= removed:
                replace_file(file, line + stream.read())
                return
    replace_file(file, b"")


def _newest_version(line: bytes) -> int:
    try:
        row: dict[str, Any] = json.loads(line)
        return max(int(span[2]) for span in row["versions"])
    except (ValueError, TypeError, LookupError, RecursionError):  # damaged: it goes with its neighbours
        return -1


def _halve(log: Path) -> None:
    """In place: an actor holds it open, and appends."""
    with open(log, "r+b") as stream:
        stream.seek(log.stat().st_size // 2)
        stream.readline()
        end = stream.read()
        stream.truncate(0)
    with open(log, "ab") as stream:
        stream.write(end)
