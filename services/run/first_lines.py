"""The first lines that a custom reward or an environment prints, on the run's terminal; its log has them all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.config.reward_components import CustomComponent

NUM_LINES = 10
POLL_S = 0.5
MAX_BYTES = 2**16
"""Read of a log at a time."""
MAX_CHARS = 500
"""Of a line that are shown."""
LOGS = ("reward-*.log", "environment-*.log")


@contextlib.asynccontextmanager
async def first_lines_shown(recipe: Recipe, logs: Path, show: Callable[[str], None]) -> AsyncIterator[None]:
    """Show what is added to the logs of reward and environment workers, up to `NUM_LINES` in all."""
    custom = any(
        isinstance(component, CustomComponent)
        for rubric in recipe.reward.rubrics.values()
        for component in rubric.values()
    )
    if not custom and recipe.environment is None:
        yield
        return
    reader = FirstLines(logs, show)
    task = asyncio.create_task(reader.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reader.read()


class FirstLines:
    """Where each log was read up to, and how many lines may still be shown."""

    def __init__(self, logs: Path, show: Callable[[str], None]) -> None:
        """What the logs hold already is of an earlier session."""
        self._logs, self._show, self._left = logs, show, NUM_LINES
        self._read_to = {file: file.stat().st_size for file in self._files()}

    async def follow(self) -> None:
        """Until all that may be shown has been."""
        while self._left:
            await asyncio.sleep(POLL_S)
            self.read()

    def read(self) -> None:
        """Show the whole lines that were added since."""
        for file in self._files():
            begins = self._read_to.get(file, 0)
            with contextlib.suppress(OSError), file.open("rb") as log:
                log.seek(begins)
                whole, newline, _ = log.read(MAX_BYTES).rpartition(b"\n")
                self._read_to[file] = begins + len(whole) + len(newline)
                for line in whole.decode(errors="replace").splitlines():
                    self._take(file, line.rstrip())

    def _take(self, file: Path, line: str) -> None:
        if not line or not self._left:
            return
        self._show(f"{file.stem}: {line[:MAX_CHARS]}")
        self._left -= 1
        if not self._left:
            self._show(f"what rewards print further is in {self._logs}")

    def _files(self) -> list[Path]:
        return sorted(file for pattern in LOGS for file in self._logs.glob(pattern))
