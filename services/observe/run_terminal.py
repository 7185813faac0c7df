"""The terminal of a run, which the run outlives: a pipe that is closed and a window that is gone end what is shown,
and nothing else. A quiet one shows warnings alone."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import IO, Any, cast

from rayzero.services.schema.terminal import Terminal

logger = logging.getLogger(__name__)

WARNING_STYLES = ("yellow", "red")


class LastingStream:
    """A text stream that takes writes for ever: once the other end is gone (`| head`, a closed window), into nothing.

    rich ends the program in its place, and Python ends it with 120 when what is left cannot be flushed.
    """

    def __init__(self, stream: IO[str]) -> None:
        """All but writing is the stream's own."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or go quiet."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._go_quiet(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or go quiet."""
        try:
            self._stream.flush()
        except OSError as error:
            self._go_quiet(error)

    def _go_quiet(self, error: OSError) -> None:
        logger.warning("nothing more is shown, the terminal or pipe is gone (%s); the run goes on", error.strerror)
        with contextlib.suppress(OSError, ValueError):
            # Under the stream, so that what it still holds, and other prints, find a place to go.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class RunTerminal(Terminal):
    """What a run says as it goes. What is yellow or red is a warning, and is never held back."""

    is_quiet = False

    def print(self, *objects: Any, style: Any = None, **options: Any) -> None:
        """As rich prints it; nothing where the run is to be quiet and this is no warning."""
        if not self.is_quiet or style in WARNING_STYLES:
            super().print(*objects, style=style, **options)


def run_console(quiet: bool = False) -> RunTerminal:
    """Standard output, for as long as there is one."""
    console = RunTerminal(file=cast("IO[str]", LastingStream(sys.stdout)), highlight=False)
    console.is_quiet = quiet
    return console
