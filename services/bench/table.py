"""How every benchmark shows itself: the machine first, then a table, or all of it as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from rayzero.services.schema.terminal import terminal


def machine() -> str:
    """The processor and how much of it this process may use."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}"


def show(title: str, rows: Sequence[tuple[str, str]], figures: Mapping[str, Any], as_json: bool) -> None:
    """Print rows of (what, how much) for people, or `figures` for programs."""
    if as_json:
        print(json.dumps({"machine": machine(), **figures}, indent=2))
        return
    console = terminal()
    console.print(f"[dim]{machine()}[/dim]")
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for what, value in rows:
        table.add_row(what, value)
    console.print(table)
