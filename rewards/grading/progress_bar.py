"""A progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

from rayzero.services.schema.printable import printable


class Bar(Protocol):
    """A progress bar on standard error, or nothing at all."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: Any) -> None: ...

    def advance(self) -> None:
        """One more is done."""
        ...

    def say(self, message: str) -> None:
        """Print a message without tearing the bar."""
        ...


class NoBar:
    """Nothing at all; messages go to standard error."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...

    def advance(self) -> None:
        """Nothing to see."""

    def say(self, message: str) -> None:
        """Print it."""
        say(message)


class RichBar:
    """rich's; messages stand above it."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("grading", total=total)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)

    def say(self, message: str) -> None:
        """Print it above the bar."""
        self._progress.console.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def progress_bar(count: Callable[[], int | None], wanted: bool) -> Bar:
    """A bar over `count()` items (None: unknown) or, unwanted, none."""
    return RichBar(count()) if wanted else NoBar()


def say(message: str) -> None:
    """One line on standard error."""
    print(printable(message), file=sys.stderr, flush=True)
