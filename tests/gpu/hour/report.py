"""The tables: OUT/PROGRAM.json and OUT/PROGRAM.md, written anew after every step. Standard library alone."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.gpu.hour.context import write_atomically
from tests.gpu.hour.steps import Device, Program, Step

State = Literal["ok", "failed", "timed out", "skipped", "left out", "interrupted"]
BAD: tuple[State, ...] = ("failed", "timed out", "interrupted")
LONGEST_REASON = 300


@dataclass(slots=True)
class Row:
    """What became of one step."""

    name: str
    what: str
    state: State
    seconds: float
    estimate_s: float
    reason: str = ""
    """Why it is not ok."""
    figures: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Figure -> target in words, and whether it was met."""
    profile: str = ""
    """File beside the tables, where a target was missed."""

    @property
    def missed(self) -> list[str]:
        """Figures that are not as good as their target."""
        return [name for name, target in self.targets.items() if not target["met"]]


class Report:
    """All rows so far."""

    def __init__(self, out: Path, program: Program, device: Device, python: str, *, go_on: bool) -> None:
        """With `go_on`, rows of an earlier run into `out` are kept where their step is not run again."""
        self.out, self.program, self.device, self.python = out, program, device, python
        self.begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self.rows: dict[str, Row] = {}
        out.mkdir(parents=True, exist_ok=True)
        if go_on and self.json.is_file():
            before = json.loads(self.json.read_text(encoding="utf-8"))
            if before["device"] == device:
                self.rows = {row["name"]: Row(**row) for row in before["steps"]}

    @property
    def json(self) -> Path:
        """For programs."""
        return self.out / f"{self.program.name}.json"

    @property
    def markdown(self) -> Path:
        """For people."""
        return self.out / f"{self.program.name}.md"

    def add(self, step: Step, state: State, seconds: float, reason: str, figures: dict[str, Any]) -> Row:
        """Note what became of a step, and write the tables."""
        row = Row(step.name, step.what, state, round(seconds, 1), step.estimate_s(self.device), reason, figures)
        if self.device == "cuda":
            for figure in step.figures:
                met = figure.met(figures[figure.key]) if figures.get(figure.key) is not None else None
                if met is not None:
                    row.targets[figure.key] = {"target": figure.target, "met": met}
        self.rows[step.name] = row
        self.write()
        return row

    def write(self) -> None:
        """Both tables, each all of it or as it was."""
        ordered = [self.rows[step.name] for step in self.program.steps if step.name in self.rows]
        content = {
            "program": self.program.name, "device": self.device, "begun": self.begun, "host": platform.node(),
            "num_cpus": os.cpu_count(), "python": self.python, "steps": [asdict(row) for row in ordered],
        }  # fmt: skip
        write_atomically(self.json, json.dumps(content, indent=2) + "\n")
        write_atomically(self.markdown, self._markdown(ordered))

    def _markdown(self, rows: list[Row]) -> str:
        where = "" if self.device == "cuda" else ": its small form on a CPU, which proves the script, not the GPU path"
        lines = [
            f"# {self.program.title}{where}",
            "",
            f"Begun {self.begun}, {os.cpu_count()} CPU cores, {self.python}.",
            "",
            "| step | | s | what | figure | target |",
            "|---|---|---:|---|---|---|",
        ]
        for row in rows:
            head = f"| {row.name} | {row.state} | {row.seconds:.0f} |"
            for cell in self._cells(row):
                lines.append(f"{head} {' | '.join(map(_plain, cell))} |")
                head = "| | | |"
        return "\n".join(lines) + "\n"

    def _cells(self, row: Row) -> Iterator[tuple[str, str, str]]:
        """(what, figure, target) of each line of a step."""
        yield f"*{row.what}*", "", ""
        if row.reason:
            yield row.reason, "", ""
        step = self.program.steps[self.program.step(row.name)]
        for figure in step.figures:
            value = row.figures.get(figure.key)
            target = row.targets.get(figure.key)
            if value is not None:
                mark = "" if target is None else f"{target['target']} {'met' if target['met'] else '**missed**'}"
                yield figure.what, figure.show(value), mark
            elif row.state == "ok" and figure.target and self.device == "cuda":
                yield figure.what, "not measured", figure.target
        if row.profile:
            yield f"where its time went: [{row.profile}]({row.profile})", "", ""

    def line(self, row: Row) -> str:
        """A step in one line, for the terminal."""
        step = self.program.steps[self.program.step(row.name)]
        said = [_plain(row.reason)] if row.reason else []
        for figure in step.figures:
            value = row.figures.get(figure.key)
            target = row.targets.get(figure.key)
            if value is not None and (target is not None or not said):
                limit = "" if target is None else f" ({target['target']})"
                said.append(f"{figure.what} {figure.show(value)}{limit}")
        mark = "ok, missed" if row.state == "ok" and row.missed else row.state
        return f"{mark:<11} {row.name:<12} {row.seconds:5.0f} s  {'; '.join(said)}"

    def is_good(self, steps: Sequence[Step]) -> bool:
        """Whether every one of these steps that ran was good."""
        return not any(row.state in BAD for step in steps if (row := self.rows.get(step.name)) is not None)


def _plain(text: str) -> str:
    """One line that no table breaks on."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
