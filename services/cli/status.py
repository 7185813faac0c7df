"""`rayzero status`: a live run at a glance, once or until it ends."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from rayzero.services.cli.client import RunAddress, RunClient
from rayzero.services.observe.text import as_clock, as_figure
from rayzero.services.schema.errors import RunUnreachable
from rayzero.services.schema.terminal import terminal

EVERY_S = 2.0
WIDE = 60
"""Columns of a terminal below which the workers' table leaves two of its own out."""
COLUMNS = {
    "worker": "worker",
    "state": "state",
    "groups": "in_flight",
    "version": "policy_version",
    "behind": "lag_versions",
    "node": "node",
}
NODE_ID = 8
"""So many letters of a node's id are shown: enough to find it in `ray list nodes`."""


def status(run: RunAddress, watch: bool, as_json: bool) -> None:
    """Print the status; with `watch` again and again until the run has ended.

    Raises:
        RunUnreachable: the run does not answer (at first; later it has ended).
    """
    client = RunClient(run)
    content = client.get("/v1/status")
    if as_json:
        while True:
            print(json.dumps(content), flush=True)
            if not watch:
                return
            time.sleep(EVERY_S)
            content = client.get("/v1/status")
    console = terminal()
    if not watch:
        console.print(_render(content, console.width))
        return
    with Live(_render(content, console.width), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(EVERY_S)
            try:
                live.update(_render(client.get("/v1/status"), console.width), refresh=True)
            except RunUnreachable:
                break
    console.print("the run has ended")


def _render(status: dict[str, Any], width: int) -> RenderableType:
    accuracies = list(status["accuracies"].items())
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True)
    head.add_column(overflow="fold")
    lines = (
        ("run", f"{status['run']}  {status['description']}"),
        ("update", f"{status['update']} of {status['num_updates']}, {_left(status['seconds_left'])} left"),
        ("health", f"{status['health']['level']}: {status['health']['line']}"),
        ("doing", status.get("now") or status["phase"]),
        ("reward", as_figure(status["figures"]["reward_mean"], ".3f")),
        ("held-out", f"{accuracies[-1][1]:.1%} at update {accuracies[-1][0]}" if accuracies else "–"),
        ("tokens/s", as_figure(status["tokens_per_s"], ".0f")),
        ("waits", status.get("waits", "–")),
        ("directory", status["directory"]),
    )
    for name, value in lines:
        head.add_row(f"[dim]{name}[/dim]", escape(value))
    return Group(head, _workers(status, width), _queues(status), _events(status))


def _workers(status: dict[str, Any], width: int) -> Table:
    table = Table(box=None, padding=(0, 2) if width >= WIDE else (0, 1), pad_edge=width >= WIDE)
    shown = COLUMNS if width >= WIDE else {name: COLUMNS[name] for name in ("worker", "state", "groups", "version")}
    for name in shown:
        table.add_column(name, justify="right" if name in ("groups", "version", "behind") else "left", overflow="fold")
    for worker in status.get("workers", []):
        known = worker | {"node": worker.get("node", "")[:NODE_ID]}
        cells = [known.get(key) for key in shown.values()]
        table.add_row(*("–" if cell in (None, "") else escape(str(cell)) for cell in cells))
    return table


def _queues(status: dict[str, Any]) -> str:
    queues = status.get("queues")
    if not queues:
        return ""
    groups = "  ".join(f"{state} {count}" for state, count in queues["groups"].items())
    dropped = "  ".join(f"{reason} {count}" for reason, count in queues["dropped"].items())
    return f"groups   {groups}" + (f"\ndropped  {escape(dropped)}" if dropped else "")


def _events(status: dict[str, Any]) -> str:
    lines: dict[str, tuple[str, int]] = {}
    for event in status["events"]:
        words = escape(f"{event['event']}  {_words(event)}".strip())
        _, times = lines.pop(words, ("", 0))  # said again: shown where it was said last
        lines[words] = (time.strftime("%H:%M:%S", time.localtime(event["time_s"])), times + 1)
    shown = list(lines.items())[-5:]
    return "\n".join(f"[dim]{at}[/dim] {words}{f' (×{times})' if times > 1 else ''}" for words, (at, times) in shown)


def _words(event: dict[str, Any]) -> str:
    if event["event"] == "warning":
        return str(event["text"])
    details = {key: value for key, value in event.items() if key not in ("number", "time_s", "event")}
    return ", ".join(f"{key} {value}" for key, value in details.items())


def _left(seconds: float | None) -> str:
    return "unknown" if seconds is None else as_clock(seconds)
