"""What a user sees while a run goes on: a live panel on a terminal, a plain line an update elsewhere, warnings alone
where it is to be quiet."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.console import Group as Lines
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.observe.api.views import tokens_per_s
from rayzero.services.observe.run_health import SEVERITY, Health, examine, with_status
from rayzero.services.observe.run_terminal import RunTerminal
from rayzero.services.observe.text import as_clock, as_figure, with_interval
from rayzero.services.observe.time_left import TimeLeft
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.messages import Group

SPARKS = "▁▂▃▄▅▆▇█"
WATCH_S = 1.0
"""How often a run that may stand still is looked at."""
SILENCE_S = 60.0
"""Without an update for so long, a log is given a line of what the run waits for; then after twice as long."""
FIGURE_WIDTH = 27
"""Columns of a terminal that a figure with its name takes."""


class ProgressView:
    """An observer of the controller."""

    def __init__(self, console: Console, left: TimeLeft) -> None:
        """Live on a terminal that can be drawn on; `console` decides."""
        self.console = console
        self.left = left
        self.num_updates = left.num_updates
        self.is_quiet = isinstance(console, RunTerminal) and console.is_quiet
        self.look: Callable[[], Mapping[str, Any]] = lambda: {}
        """What a live run is doing (`views.now`); empty until it is up. Asked in the run's own loop alone."""
        self._status: Mapping[str, Any] = {}
        """What it said last: the panel is drawn by a thread of its own."""
        self.row: dict[str, Any] = {}
        self.accuracies: list[tuple[int, float]] = []
        self.rewards: deque[float] = deque(maxlen=60)
        self.rows: list[Mapping[str, Any]] = []
        self.evaluations: list[Mapping[str, Any]] = []
        self.health = self._examined = examine(())
        self.phase = "starting"
        self._phase_since = self._silent_since = time.monotonic()
        self._patience_s = SILENCE_S
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("update"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            console=console,
        )
        self._task = self._bar.add_task("updates", total=self.num_updates)

    def __enter__(self) -> ProgressView:
        """Take the terminal."""
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.is_quiet:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, the last state left on it."""
        self._status = {}  # the run does nothing any more
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, phase: str) -> None:
        """What the run is doing now, before there are updates to show."""
        self.phase, self._phase_since = phase, time.monotonic()
        if self._live is None:
            self.console.print(phase, style="dim", soft_wrap=True, markup=False)

    def resume(
        self,
        accuracies: Mapping[int, float],
        rows: Sequence[Mapping[str, Any]],
        evaluations: Sequence[Mapping[str, Any]],
    ) -> None:
        """Show what the run had reached when it was interrupted, and judge it by all of its rows."""
        self.accuracies = sorted(accuracies.items())
        self.rows, self.evaluations = list(rows), list(evaluations)
        self._examine()
        self._bar.update(self._task, completed=rows[-1]["update"] if rows else 0)

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done."""
        self.row = row
        self.rewards.append(row["reward_mean"])
        self.rows.append(row)
        self._examine()
        self._silent_since, self._patience_s = time.monotonic(), SILENCE_S
        self._bar.update(self._task, completed=row["update"])
        self.set_phase(f"training · update {row['update']}")
        if self._live is None:
            self.console.print(self._line(), highlight=False, soft_wrap=True)
        for warning in row.get("warnings", ()):
            self.console.print(f"update {row['update']}: {warning}", style="yellow", soft_wrap=True, markup=False)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Held-out accuracy."""
        self.accuracies.append((evaluation.policy_version, evaluation.accuracy))
        self.evaluations.append(evaluation.row())
        self._examine()
        if self._live is None:
            found = [with_interval(evaluation.accuracy, evaluation.standard_error, ".1%")]
            if (greedy := evaluation.greedy) is not None:
                found.append(f"greedy {with_interval(greedy.mean, greedy.standard_error, '.1%')}")
            self.console.print(
                f"held-out accuracy at update {evaluation.policy_version}: {', '.join(found)} "
                f"({len(evaluation.groups)} prompts)",
                highlight=False,
                soft_wrap=True,
            )

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """Counted in the update's row."""

    def set_phase(self, phase: str) -> None:
        """Set the phase without a line of its own."""
        self.phase, self._phase_since = phase, time.monotonic()

    async def watch(self) -> None:
        """Look at the run again and again, until cancelled: one that stands still calls no observer."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.glance()

    def glance(self) -> None:
        """How the run is now; a line where no panel stands and it got worse, or nothing has come for long."""
        status = self._status = self.look()
        self._settle(with_status(self._examined, status, bool(self.rows)))
        # Before the first update each phase has said what it is: what came before it is no silence.
        since = self._silent_since if self.row else max(self._silent_since, self._phase_since)
        silent_s = time.monotonic() - since
        if self._live is None and silent_s > self._patience_s and status:
            while self._patience_s < silent_s:
                self._patience_s *= 2
            text = f"no update for {as_clock(silent_s)}: {status['now']}"
            self.console.print(text, style="dim", soft_wrap=True, markup=False)

    def _examine(self) -> None:
        self._examined, self._status = examine(self.rows, self.evaluations), self.look()
        self._settle(with_status(self._examined, self._status, bool(self.rows)))

    def _settle(self, health: Health) -> None:
        """Where no panel stands, a line when it gets worse."""
        before, self.health = self.health, health
        if self._live is None and SEVERITY[health.level] > SEVERITY[before.level]:
            worst = health.findings[0]
            if worst.text in self.row.get("warnings", ()):
                return  # which has a line of its own
            doing = f"; {now}" if (now := self._status.get("now")) and worst.topic == "it-stands-still" else ""
            text = f"{worst.level}: {worst.text}{doing}; see {worst.page}"
            self.console.print(text, style=worst.level.value, soft_wrap=True, markup=False)

    def _left_s(self) -> float | None:
        return self.left.seconds(self.rows, self.evaluations)

    def _figures(self) -> list[tuple[str, str]]:
        row = self.row
        accuracy = f"{self.accuracies[-1][1]:.1%} (update {self.accuracies[-1][0]})" if self.accuracies else "–"
        left = self._left_s()
        return [
            ("reward", f"{row['reward_mean']:.3f}" if row else "–"),
            ("held-out accuracy", accuracy),
            ("training accuracy", f"{row['train_accuracy']:.1%}" if row else "–"),
            ("tokens/s", as_figure(tokens_per_s(self.rows), ".0f")),
            ("staleness", f"{row['staleness_mean']:.1f} (max {row['staleness_max']})" if row else "–"),
            ("entropy", _entropy(row)),
            ("time left", as_clock(left) if left is not None else "–"),
        ]

    def _line(self) -> str:
        row, left = self.row, self._left_s()
        accuracy = f"{self.accuracies[-1][1]:.1%}" if self.accuracies else "–"
        return (
            f"update {row['update']:>4}/{self.num_updates}  reward {row['reward_mean']:.3f}  held-out {accuracy}"
            f"  tokens/s {as_figure(tokens_per_s(self.rows), '.0f')}  staleness {row['staleness_mean']:.1f}"
            f"  entropy {_entropy(row)}  left {as_clock(left) if left is not None else '–'}"
        )

    def _render(self) -> Lines:
        width = self.console.width
        table = Table.grid(padding=(0, 2))
        figures, across = self._figures(), max(1, min(4, width // FIGURE_WIDTH))
        for index in range(0, len(figures), across):
            cells = [
                Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in figures[index : index + across]
            ]
            table.add_row(*cells)
        waited = time.monotonic() - self._phase_since
        doing = self._status.get("now", self.phase)
        status = Text.assemble((doing, "cyan"), (f"  {as_clock(waited)}" if waited > 2 else "", "dim"))
        curve = Text.assemble(("reward    ", "dim"), (sparkline(list(self.rewards)[-max(10, width - 10) :]), "green"))
        shown = self.accuracies[-max(1, (width - 10) // 10) :]
        accuracy = Text.assemble(
            ("accuracy  ", "dim"), ("  ".join(f"{update}: {value:.0%}" for update, value in shown), "green")
        )
        level = self.health.level.value  # in words, too: colours may be off, or not seen
        health = Text.assemble((f"{level}: ", level), (self.health.line, "bold" if self.health.findings else ""))
        for finding in self.health.findings[:1]:
            health.append(f"  see {finding.page}", "dim")
        return Lines(self._bar, health, table, curve, accuracy, status)


def _entropy(row: dict[str, Any]) -> str:
    """Nats a token; unknown for a batch in which nothing was trained on."""
    entropy = row.get("entropy")
    return "–" if entropy is None or entropy != entropy else f"{entropy:.2f}"


def sparkline(values: Sequence[float]) -> str:
    """One block a value, scaled to the values' own range."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in values)
