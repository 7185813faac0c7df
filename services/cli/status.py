"""`rayzero status`: a live run at a glance, once or until it ends; how one that has ended went."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from rayzero.services.cli.client import RunAddress, RunClient
from rayzero.services.cli.page_data import PHASES, curves_of, status_of
from rayzero.services.observe.text import as_clock, as_figure
from rayzero.services.schema.errors import RunUnreachable
from rayzero.services.schema.plain import is_figure, plain
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.run_directory import RunDirectory

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
COMPARED = (
    "reward_mean",
    "train_accuracy",
    "uniform_group_share",
    "truncated_share",
    "verdict_errors",
    "completion_tokens_mean",
    "advantage_abs_mean",
    "grad_norm",
    "learning_rate",
    "entropy",
    "kl_rollout",
    "ess",
    "staleness_mean",
)
"""Figures of the first and the last update that the guide on runs that do not learn asks for; and each component's."""


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


def show_ended(directory: RunDirectory, as_json: bool) -> bool:
    """How a run on disk went: its health with what to do, first update beside last. False, and nothing, of one that
    lives."""
    curves = curves_of(directory)
    found = status_of(directory, curves)
    if found["phase"] == PHASES["live"]:
        return False
    first = curves["rows"][0] if curves["rows"] else {}
    if as_json:
        print(json.dumps(plain(found | {"first": first, "directory": str(directory.path)})), flush=True)
    else:
        terminal().print(_render_ended(found, first, str(directory.path)))
    return True


def _render_ended(status: dict[str, Any], first: dict[str, Any], directory: str) -> RenderableType:
    accuracies = list(status["accuracies"].items())
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True)
    head.add_column(overflow="fold")
    held_out = ", ".join(f"{accuracy:.1%} at update {at}" for at, accuracy in (accuracies[:1] + accuracies[1:][-1:]))
    health = status["health"]
    lines = [
        ("run", f"{status['run']}  {status['description']}"),
        ("state", status["phase"]),
        ("update", f"{status['update']} of {status['num_updates']}"),
        ("held-out", held_out or "–"),
        ("directory", directory),
        *([] if health["findings"] else [("health", f"{health['level']}: {health['line']}")]),
    ]
    for finding in health["findings"]:
        lines.append(("health", f"{finding['level']}: {finding['text']}"))
        lines += [("", text) for text in (finding.get("detail", ""), finding["advice"], finding["page"]) if text]
    for name, value in lines:
        head.add_row(f"[dim]{name}[/dim]", escape(value))
    return Group(head, "", _first_and_last(first, status["figures"]))


def _first_and_last(first: dict[str, Any], last: dict[str, Any]) -> RenderableType:
    if not last:
        return ""
    table = Table(box=None, padding=(0, 2))
    for title in ("", f"update {first.get('update')}", f"update {last.get('update')}"):
        table.add_column(escape(title), justify="right" if title else "left", overflow="fold")
    for name in (*COMPARED, *sorted(name for name in last if name.startswith("reward/"))):
        values = [row[name] if is_figure(row.get(name)) else None for row in (first, last)]
        if values != [None, None]:
            table.add_row(escape(name), *(as_figure(value) for value in values))
    return table


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
