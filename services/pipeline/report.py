"""What each stage added: one table a source, one row a model, and the curves of the RL stages.

report.md for reading, report.json for scripts, report.png and report.html (which needs no other file) for looking at.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayzero.services.pipeline.charts import HELD_OUT, draw
from rayzero.services.store.run_directory import write_atomically, write_json

FIRST = ("accuracy", "greedy")
LAST = ("format", "language", "length")
SHARES = ("accuracy", "greedy", "in format", "pass@", "majority@", "format", "language")
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;color:#222;background:#fff}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img,svg{max-width:100%;height:auto}small{color:#666}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that is reported of a pipeline."""

    stages: Sequence[Mapping[str, Any]]
    """Rows of `PipelineRun.summary`."""
    results: Mapping[str, Mapping[str, Any]]
    """By model, by source: the figures of services/pipeline/statistics.py. Of several evaluations the last counts."""
    curves: Mapping[str, Mapping[str, Any]]
    """By RL stage: of the training batches, and under `held_out` of the held-out prompts, if they were asked."""


def collect(stages: Sequence[Mapping[str, Any]]) -> Report:
    """From the finished stages."""
    done = [row for row in stages if row["state"] == "done"]
    results: dict[str, Mapping[str, Any]] = {}
    for row in done:
        results |= row["figures"].get("results", {})
    curves = {
        row["stage"]: {**row["figures"]["curves"], HELD_OUT: row["figures"].get(HELD_OUT)}
        for row in done
        if "accuracy" in row["figures"].get("curves", {})
    }
    return Report(stages=stages, results=results, curves=curves)


def write_report(directory: Path, title: str, description: str, report: Report) -> None:
    """Write all four files; a pipeline that is half done has a report of that half."""
    write_json(directory / "report.json", {"results": report.results, "stages": [_stage_row(r) for r in report.stages]})
    lines = [f"# {title}", "", description, ""]
    page = [f"<h1>{html.escape(title)}</h1><p>{html.escape(description)}</p>"]
    for source in sources(report):
        rows = table_rows(report, source)
        lines += [f"## {source}", "", *markdown(rows), ""]
        page.append(f"<h2>{html.escape(source)}</h2>{_html(rows)}")
    rows = [["stage", "kind", "state", "seconds"], *([str(row[key]) for key in _STAGE] for row in report.stages)]
    lines += ["## stages", "", *markdown(rows), ""]
    if report.results or report.curves:
        draw(report.results, report.curves, directory / "report.png", directory / "report.svg")
        lines += ["![what each stage added](report.png)", ""]
        drawing = (directory / "report.svg").read_text(encoding="utf-8")
        page.append(drawing[drawing.index("<svg") :])
    note = (
        "± is half of a 95 % interval, from the spread over prompts. accuracy is as sampled, greedy at temperature 0."
    )
    write_atomically(directory / "report.md", "\n".join([*lines, note, ""]))
    page.append(f"<h2>stages</h2>{_html(rows)}<small>{html.escape(note)}</small>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
    write_atomically(directory / "report.html", head + "".join(page) + "</html>\n")


def print_report(console: Console, file: Path, report: Report) -> None:
    """The tables, and where the rest is."""
    for source in sources(report):
        head, *rows = table_rows(report, source)
        table = Table(title=source)
        for index, name in enumerate(head):
            table.add_column(escape(name), justify="right" if index else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"report: {file}", style="dim", soft_wrap=True, markup=False)


def sources(report: Report) -> list[str]:
    """Every source that a model was measured on, `all` first where there is one."""
    return list(dict.fromkeys(source for by_source in report.results.values() for source in by_source))


def table_rows(report: Report, source: str) -> list[list[str]]:
    """Head and rows of one source's table."""
    measured = {model: by_source[source] for model, by_source in report.results.items() if source in by_source}
    present = dict.fromkeys(name for figures in measured.values() for name, value in figures.items() if _is_mean(value))
    middle = sorted(name for name in present if name not in (*FIRST, *LAST))
    names = [name for name in (*FIRST, *middle, *LAST) if name in present]
    rows = [["model", *names]]
    for model, figures in measured.items():
        rows.append([model, *(_cell(name, figures.get(name)) for name in names)])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its first row the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]]


_STAGE = ("stage", "kind", "state", "seconds")


def _stage_row(row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {key: value for key, value in row["figures"].items() if key not in ("curves", "results")}
    return {**{key: row[key] for key in _STAGE}, "figures": figures}


def _is_mean(value: Any) -> bool:
    return isinstance(value, Mapping) and "mean" in value


def _cell(name: str, value: Any) -> str:
    if not _is_mean(value) or value["mean"] is None or math.isnan(value["mean"]):
        return "–"
    half = (value["high"] - value["mean"]) if value["high"] is not None else math.nan
    spread = "" if math.isnan(half) else f" ± {half:.1%}" if name.startswith(SHARES) else f" ± {half:.2f}"
    return (f"{value['mean']:.1%}" if name.startswith(SHARES) else f"{value['mean']:.2f}") + spread.replace("%", "")


def _html(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><tr>{cells}</tr>{lines}</table>"
