"""A model's text in tables, titles, panels and logs; rich's own colours go on working."""

from __future__ import annotations

import io
import logging

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from rayzero.services.schema.terminal import LogFormatter, Terminal

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\ud800\rx"


def colourful() -> Terminal:
    return Terminal(file=io.StringIO(), force_terminal=True, width=200, color_system="standard", highlight=False)


def written(terminal: Terminal) -> str:
    stream = terminal.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_hostile_text_is_shown_wherever_it_stands() -> None:
    terminal = colourful()
    table = Table(title=escape(HOSTILE), caption=escape(HOSTILE))
    table.add_column(escape(HOSTILE), overflow="fold")
    table.add_row(f"[red]{escape(HOSTILE)}[/red]")
    terminal.print(escape(HOSTILE), table, style="bold")
    terminal.rule(escape(HOSTILE))
    with Live(escape(HOSTILE), console=terminal, auto_refresh=False) as live:
        live.update(table, refresh=True)
    shown = written(terminal)
    for obeyed in ("\x1b]", "\x1b[2J\\", "\x9b", "\u202e", "\ud800", "\x07"):
        assert obeyed not in shown
    assert r"\x1b]0;owned" in shown and "\x1b[1m" in shown and "\x1b[31m" in shown


def test_broken_markup_is_shown_as_it_stands() -> None:
    terminal = colourful()
    table = Table(title="[/title]")
    table.add_row("[/foo]", "[red")
    terminal.print("[/foo] [bold]", table)
    assert "[/foo] [bold]" in written(terminal) and "[/title]" in written(terminal)


def test_a_line_of_the_log_is_safe_to_look_at() -> None:
    record = logging.LogRecord("rayzero", logging.WARNING, __file__, 1, "said %s", (HOSTILE,), None)
    assert LogFormatter("%(message)s").format(record).startswith(r"said \x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\ud800")
