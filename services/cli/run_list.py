"""`rayzero runs ls`: every run on disk, one line each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from rayzero.services.cli.page_data import end_of
from rayzero.services.schema.plain import is_figure
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory
from rayzero.services.store.run_seconds import seconds_of

BEST_IS = "best: the highest of a run's evaluations, by the prompts that chose it; greedy: at temperature 0"

COLUMNS = (
    "run",
    "state",
    "update",
    "reward",
    "accuracy_before",
    "accuracy_best",
    "accuracy_last",
    "greedy_before",
    "greedy_last",
    "seconds",
)
FIRST_LEFT_OUT = ("greedy_before", "accuracy_before", "reward", "greedy_last", "accuracy_last")
"""In this order, where a window is narrow."""
WIDEST = 10_000


def list_runs(runs: Path, as_json: bool) -> None:
    """Every run below `runs`, the newest first."""
    found = sorted(runs.glob("*/recipe.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    rows = [describe(RunDirectory(file.parent)) for file in found]
    if as_json:
        print(json.dumps(rows))
        return
    console = terminal()
    if not rows:
        console.print(f"no runs below {runs}")
        return
    table = table_of(rows, console.width if console.is_terminal else None)
    if not console.is_terminal:
        console.width = width_of(table)
    console.print(table)
    console.print(BEST_IS, style="dim", soft_wrap=not console.is_terminal)


def table_of(rows: Sequence[Mapping[str, Any]], width: int | None) -> Table:
    """A line a run, with as many columns as `width` has room for; with all of them where it is None."""
    names = list(COLUMNS)
    table = _drawn(rows, names)
    for name in FIRST_LEFT_OUT:
        if width is None or width_of(table) <= width:
            break
        names.remove(name)
        table = _drawn(rows, names)
    return table


def width_of(table: Table) -> int:
    """Columns of a terminal that a table takes when nothing of it is cut."""
    wide = Console(width=WIDEST)
    return Measurement.get(wide, wide.options, table).maximum


def _drawn(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        justify: Literal["left", "right"] = "left" if name in ("run", "state") else "right"
        # A name that is too long for a window is folded, and no figure is cut.
        table.add_column(
            name.removeprefix("accuracy_"),
            no_wrap=name != "run",
            overflow="fold",
            justify=justify,
        )
    for row in rows:
        table.add_row(*(escape(shown(row[name])) for name in names))
    return table


def describe(directory: RunDirectory) -> dict[str, Any]:
    """One run in figures."""
    rows = read_lines(directory.file("metrics.jsonl"))
    evaluations = read_lines(directory.file("evaluations.jsonl"))
    accuracies, greedy = (figures(evaluations, name) for name in ("accuracy", "greedy_accuracy"))
    rewards, updates = (figures(rows, name) for name in ("reward_mean", "update"))
    ended = end_of(directory)["ended"]
    return {
        "run": directory.path.name,
        "directory": str(directory.path),
        "state": "stopped" if ended == "unknown" else ended,
        "update": updates[-1] if updates else 0,
        "reward": rewards[-1] if rewards else None,
        "accuracy_before": accuracies[0] if accuracies else None,
        "accuracy_best": max(accuracies, default=None),
        "accuracy_last": accuracies[-1] if accuracies else None,
        "greedy_before": greedy[0] if greedy else None,
        "greedy_last": greedy[-1] if greedy else None,
        "seconds": _seconds(directory, rows),
    }


def figures(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Those of a record that are numbers: what stands in another's directory must not hide the other runs."""
    return [value for row in rows if is_figure(value := row.get(name))]


def _seconds(directory: RunDirectory, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """As the summary says; before there is one, of the updates so far."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(directory.file("summary.json").read_text(encoding="utf-8"))["seconds"])
    return round(seconds_of(rows), 1) if rows else None


def shown(value: Any) -> str:
    """A figure of a table."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
