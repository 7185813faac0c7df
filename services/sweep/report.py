"""All members in one table, seeds as means with Student's interval, and in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayzero.services.pipeline.report import SHARES, markdown
from rayzero.services.pipeline.seeds import over_runs
from rayzero.services.store.run_directory import write_atomically, write_json

PANELS = {"accuracy": "accuracy", "length": "tokens a completion"}

Row = Mapping[str, Any]
"""A finished member as sweep.json has it: name, setting, seed, figures, curves, seconds."""


def write_sweep(directory: Path, head: Mapping[str, Any], members: Sequence[Row]) -> None:
    """sweep.json, sweep.md and sweep.png, of the members that are done."""
    write_json(directory / "sweep.json", {**head, "members": members})
    note = "A mean over seeds ± half of its 95 % interval (Student's t), then each seed's figure; shares in per cent."
    lines = [f"# {head['name']}", "", *markdown(table_rows(members)), "", note, "", "![curves](sweep.png)", ""]
    write_atomically(directory / "sweep.md", "\n".join(lines))
    draw(members, directory / "sweep.png")


def print_sweep(console: Console, directory: Path, members: Sequence[Row]) -> None:
    """The table, and where the rest is."""
    head, *rows = table_rows(members)
    table = Table()
    for index, name in enumerate(head):
        table.add_column(escape(name), justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"figure and table: {directory}/sweep.png, sweep.md, sweep.json", soft_wrap=True, markup=False)


def by_setting(members: Sequence[Row]) -> dict[str, list[Row]]:
    """Members that differ by their seed alone, together, in the order of the sweep."""
    found: dict[str, list[Row]] = {}
    for member in members:
        found.setdefault(member["setting"], []).append(member)
    return found


def table_rows(members: Sequence[Row]) -> list[list[str]]:
    """Head and rows: one a figure, a column a setting."""
    settings = by_setting(members)
    names = dict.fromkeys(name for member in members for name in member["figures"])
    rows = [["", *(f"{setting or 'all'} ({len(same)} runs)" for setting, same in settings.items())]]
    for name in names:
        found = [[member["figures"].get(name) for member in same] for same in settings.values()]
        rows.append([name, *(cell(name, [value for value in values if value is not None]) for values in found)])
    seconds = [[member["seconds"] for member in same] for same in settings.values()]
    return [*rows, ["seconds", *(cell("seconds", values) for values in seconds)]]


def cell(name: str, values: Sequence[float]) -> str:
    """`84.1 ± 2.0 (83.2, 84.9, 84.2)`."""
    if not values:
        return "–"
    scale, form = (100, ".1f") if any(word in name for word in SHARES) else (1, ".1f")
    if len(values) == 1:
        return f"{scale * values[0]:{form}}"
    joint = over_runs(values)
    half, each = joint["high"] - joint["mean"], ", ".join(f"{scale * value:{form}}" for value in values)
    return f"{scale * joint['mean']:{form}} ± {scale * half:{form}} ({each})"


def draw(members: Sequence[Row], png: Path) -> None:
    """Accuracy and length over updates: a thin line a seed, a thick one their mean, a colour a setting and stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(12, 4.2), layout="constrained")
    try:
        for number, (label, curves) in enumerate(_curves(members).items()):
            for axis, name in zip(axes, PANELS, strict=True):
                _lines(axis, name, curves, f"C{number % 10}", label)
        for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
            axis.set_xlabel("update")
            axis.set_title(title)
            axis.set_ylim(bottom=0, top=1 if name == "accuracy" else None)
            if axis.get_legend_handles_labels()[1]:
                axis.legend(fontsize=8)
        figure.savefig(png, dpi=120)
    finally:
        pyplot.close(figure)


def _curves(members: Sequence[Row]) -> dict[str, list[Mapping[str, Sequence[Any]]]]:
    """By what the legend calls it: the curves of all seeds."""
    found: dict[str, list[Mapping[str, Sequence[Any]]]] = {}
    for setting, same in by_setting(members).items():
        for member in same:
            for stage, curve in member["curves"].items():
                found.setdefault(", ".join(filter(None, (stage, setting))), []).append(curve)
    return found


def _lines(axis: Any, name: str, curves: Sequence[Mapping[str, Sequence[Any]]], colour: str, label: str) -> None:
    having = [curve for curve in curves if curve.get(name)]
    for curve in having:
        axis.plot(curve["update"], curve[name], color=colour, linewidth=0.8, alpha=0.5)
    at: dict[Any, list[float]] = {}
    for curve in having:
        for update, value in zip(curve["update"], curve[name], strict=True):
            if value is not None:
                at.setdefault(update, []).append(value)
    common = [
        (update, sum(values) / len(values)) for update, values in sorted(at.items()) if len(values) == len(having)
    ]
    if common:
        axis.plot(*zip(*common, strict=True), color=colour, linewidth=2.2, label=f"{label or 'mean'} ({len(having)})")
