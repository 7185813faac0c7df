"""What a user sees while a run goes on: a live panel on a terminal, a plain line an update elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.console import Group as Lines
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from rayzero.services.loop.evaluation import Evaluation
from rayzero.services.observe.run_health import SEVERITY, examine
from rayzero.services.observe.text import as_clock
from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.messages import Group

SPARKS = "▁▂▃▄▅▆▇█"


class ProgressView:
    """An observer of the controller."""

    def __init__(self, console: Console, num_updates: int) -> None:
        """Live on a terminal; `console.is_terminal` decides."""
        self.console = console
        self.num_updates = num_updates
        self.row: dict[str, Any] = {}
        self.accuracies: list[tuple[int, float]] = []
        self.rewards: deque[float] = deque(maxlen=60)
        self.rows: list[Mapping[str, Any]] = []
        self.evaluations: list[Mapping[str, Any]] = []
        self.health = examine(())
        self.recent: deque[tuple[float, int, float]] = deque(maxlen=8)
        self.phase = "starting"
        self._phase_since = time.monotonic()
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("update"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            console=console,
        )
        self._task = self._bar.add_task("updates", total=num_updates)

    def __enter__(self) -> ProgressView:
        """Take the terminal."""
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, the last state left on it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, phase: str) -> None:
        """What the run is doing now, before there are updates to show."""
        self.phase, self._phase_since = phase, time.monotonic()
        if self._live is None:
            self.console.print(phase, style="dim", soft_wrap=True, markup=False)

    def resume(self, update: int, accuracies: Mapping[int, float]) -> None:
        """Show what the run had reached when it was interrupted."""
        self.accuracies = sorted(accuracies.items())
        self._bar.update(self._task, completed=update)

    def on_update(self, row: dict[str, Any], groups: Sequence[Group]) -> None:
        """One update is done."""
        self.row = row
        self.rewards.append(row["reward_mean"])
        self.rows.append(row)
        self._examine()
        self.recent.append((time.monotonic(), row["update"], row["completion_tokens"]))
        self._bar.update(self._task, completed=row["update"])
        self.set_phase(f"training · update {row['update']}")
        if self._live is None:
            self.console.print(self._line(), highlight=False, soft_wrap=True)
        for warning in row.get("warnings", ()):
            self.console.print(f"update {row['update']}: {warning}", style="yellow", soft_wrap=True, markup=False)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Held-out accuracy."""
        self.accuracies.append((evaluation.policy_version, evaluation.accuracy))
        self.evaluations.append(evaluation.figures())
        self._examine()
        if self._live is None:
            greedy = "" if evaluation.greedy is None else f", greedy {evaluation.greedy.mean:.1%}"
            error = "" if math.isnan(evaluation.standard_error) else f" ± {evaluation.standard_error:.1%}"
            self.console.print(
                f"held-out accuracy at update {evaluation.policy_version}: {evaluation.accuracy:.1%}{error}{greedy} "
                f"({len(evaluation.groups)} prompts)",
                highlight=False,
                soft_wrap=True,
            )

    def on_drop(self, group: Group, reason: DropReason) -> None:
        """Counted in the update's row."""

    def set_phase(self, phase: str) -> None:
        """Set the phase without a line of its own."""
        self.phase, self._phase_since = phase, time.monotonic()

    def _examine(self) -> None:
        """Where no panel stands, a line when it gets worse."""
        before, self.health = self.health, examine(self.rows, self.evaluations)
        if self._live is None and SEVERITY[self.health.level] > SEVERITY[before.level]:
            worst = self.health.findings[0]
            self.console.print(
                f"{worst.level}: {worst.text}; see {worst.page}", style=worst.level.value, soft_wrap=True, markup=False
            )

    def _tokens_per_s(self) -> float:
        if len(self.recent) < 2:
            return 0.0
        elapsed = self.recent[-1][0] - self.recent[0][0]
        return sum(tokens for _, _, tokens in list(self.recent)[1:]) / elapsed if elapsed > 0 else 0.0

    def _left_s(self) -> float | None:
        if len(self.recent) < 2:
            return None
        (first_s, first, _), (last_s, last, _) = self.recent[0], self.recent[-1]
        return (last_s - first_s) / (last - first) * (self.num_updates - last) if last > first else None

    def _figures(self) -> list[tuple[str, str]]:
        row = self.row
        accuracy = f"{self.accuracies[-1][1]:.1%} (update {self.accuracies[-1][0]})" if self.accuracies else "–"
        left = self._left_s()
        return [
            ("reward", f"{row['reward_mean']:.3f}" if row else "–"),
            ("held-out accuracy", accuracy),
            ("training accuracy", f"{row['train_accuracy']:.1%}" if row else "–"),
            ("tokens/s", f"{self._tokens_per_s():.0f}" if row else "–"),
            ("staleness", f"{row['staleness_mean']:.1f} (max {row['staleness_max']})" if row else "–"),
            ("entropy", _entropy(row)),
            ("time left", as_clock(left) if left is not None else "–"),
        ]

    def _line(self) -> str:
        row, left = self.row, self._left_s()
        accuracy = f"{self.accuracies[-1][1]:.1%}" if self.accuracies else "–"
        return (
            f"update {row['update']:>4}/{self.num_updates}  reward {row['reward_mean']:.3f}  accuracy {accuracy}"
            f"  tokens/s {self._tokens_per_s():.0f}  staleness {row['staleness_mean']:.1f}"
            f"  entropy {_entropy(row)}  left {as_clock(left) if left is not None else '–'}"
        )

    def _render(self) -> Lines:
        table = Table.grid(padding=(0, 2))
        figures = self._figures()
        for index in range(0, len(figures), 4):
            cells = [Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in figures[index : index + 4]]
            table.add_row(*cells)
        waited = time.monotonic() - self._phase_since
        status = Text.assemble((self.phase, "cyan"), (f"  {as_clock(waited)}" if waited > 2 else "", "dim"))
        curve = Text.assemble(("reward    ", "dim"), (sparkline(list(self.rewards)), "green"))
        accuracy = Text.assemble(
            ("accuracy  ", "dim"),
            ("  ".join(f"{update}: {value:.0%}" for update, value in self.accuracies[-9:]), "green"),
        )
        health = Text.assemble(
            ("● ", self.health.level.value), (self.health.line, "bold" if self.health.findings else "")
        )
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
