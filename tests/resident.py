"""Memory that processes really hold, watched while they work: what they wrote to, files that are mapped not counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

EVERY_S = 0.003
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "500000"}
"""Environment of a process that is watched: what it frees goes back to the system at once, as it would on a GPU."""


def resident_bytes(pids: Sequence[int | str] = ("self",)) -> int:
    """Of all of them; one that has ended holds nothing."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return total


class Peak:
    """The most that was held at once between enter and exit."""

    def __init__(self, pids: Sequence[int | str] = ("self",)) -> None:
        self.num_bytes = 0
        self._pids, self._ended = pids, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.num_bytes = max(self.num_bytes, resident_bytes(self._pids))

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.num_bytes = max(self.num_bytes, resident_bytes(self._pids))
            time.sleep(EVERY_S)
