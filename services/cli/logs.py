"""`rayzero logs RUN [ACTOR] -f`: what a run's actors logged, each line with its actor's name."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rayzero.services.cli.client import find_directory, live_run
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.printable import printable
from rayzero.services.store.api_file import ADDRESS_FILE
from rayzero.services.store.run_directory import RunDirectory

POLL_S = 0.5
CHUNK_BYTES = 1 << 20


def logs(run: str, runs: Path, actor: str | None, lines: int, follow: bool) -> None:
    """The last lines of each log, the oldest log first; with `follow` then what is added, until the run has ended.

    Raises:
        UsageError: no such run, or no log of such an actor; names those that there are.
    """
    directory = RunDirectory(find_directory(run, runs))
    tails = {file: _Tail(file) for file in _files(directory, actor)}
    for tail in sorted(tails.values(), key=lambda tail: tail.changed_s):
        for line in tail.last(lines):
            tail.show(line)
    while follow:
        alive = live_run(directory.file(ADDRESS_FILE)) is not None  # before the last look: nothing of its end is missed
        for file in _files(directory, actor):
            tail = tails.setdefault(file, _Tail(file))
            for line in tail.more():
                tail.show(line)
        if not alive:
            return
        time.sleep(POLL_S)


def _files(directory: RunDirectory, actor: str | None) -> list[Path]:
    """Logs of an actor (`rollout-0`), of a role (`rollout`), or all."""
    found = sorted(directory.logs.glob("*.log"))
    if actor is None:
        return found
    chosen = [file for file in found if file.stem == actor] or [
        file for file in found if file.stem.rpartition("-")[0] == actor
    ]
    if not chosen:
        there = ", ".join(file.stem for file in found) or "none yet"
        raise UsageError(f"no log of {actor!r} in {directory.logs}; there are: {there}")
    return chosen


class _Tail:
    """One log and how far it was shown."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._offset, self._rest = 0, b""

    @property
    def changed_s(self) -> float:
        """When something was added."""
        return self.file.stat().st_mtime if self.file.exists() else 0.0

    def last(self, count: int) -> list[str]:
        """Its last lines, whatever was shown."""
        return list(deque(self.more(), maxlen=count))

    def more(self) -> Iterator[str]:
        """Whole lines that were added since."""
        try:
            with open(self.file, "rb") as opened:
                size = opened.seek(0, 2)
                if size < self._offset:  # it was cut (`observe.retention`): what is left was shown
                    self._offset, self._rest = size, b""
                opened.seek(self._offset)
                while chunk := opened.read(CHUNK_BYTES):
                    self._offset += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    yield from (line.decode(errors="replace") for line in whole)
        except FileNotFoundError:
            return

    def show(self, line: str) -> None:
        """Print one, by whom it is."""
        print(f"{self.file.stem:>10} | {printable(line.rstrip())}", flush=True)
