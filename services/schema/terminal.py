"""The terminal that every command prints to: text of a model, a row or a server never reaches it as a command."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.errors import MarkupError
from rich.segment import Segment
from rich.text import Text

from rayzero.services.schema.printable import printable


class Terminal(Console):
    """rich's console, which would pass ESC, C1 and bidirectional controls on as they are."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What rich draws, its own control codes untouched."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:
        """Text with rich's markup; as it stands where that is broken: a path or a name may hold `[/x]`."""
        try:
            return super().render_str(text, **options)
        except MarkupError:
            return super().render_str(text, **{**options, "markup": False})


def terminal(stderr: bool = False) -> Terminal:
    """Standard output or standard error."""
    return Terminal(highlight=False, stderr=stderr)


class LogFormatter(logging.Formatter):
    """Lines of a log, which is read on a terminal, too."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return printable(super().format(record))


def log_to(file: Path) -> None:
    """The log of this process, in a file: its terminal shows something else."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
