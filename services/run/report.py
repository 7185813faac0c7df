"""How a run ended: summary.json, and the before-and-after table that is printed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rayzero.services.loop.controller import Controller
from rayzero.services.loop.evaluation import best_version
from rayzero.services.observe.progress import sparkline
from rayzero.services.observe.text import shortened, with_interval
from rayzero.services.schema.errors import RunDirectoryError
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory, write_json
from rayzero.services.store.run_seconds import seconds_of

SHOWN_COMPLETIONS = 4
ENDS = ("standard_error", "greedy_accuracy", "greedy_standard_error", "pass_at_k", "pass_at_k_standard_error")
"""Of evaluations.jsonl: what summary.json has of both ends besides the accuracy."""
SHIPPED_TASKS = "rayzero.services.data.tasks."
OWN_PROBLEM = """
Your own problem next: a file of prompts, each with its answer,
    {"prompt": "What is 17 + 25? Put the answer in \\boxed{}.", "answer": "42"}
    rayzero data check prompts.jsonl          # what of it can be trained on
    rayzero new mine --data prompts.jsonl     # a recipe for it, mine/recipe.yaml, to read and change
    rayzero train mine/recipe.yaml"""


def write_summary(directory: RunDirectory, controller: Controller, seconds: float) -> dict[str, Any]:
    """Write summary.json and the `model` link to the last checkpoint; returns the summary. `seconds`: of this session;
    those of the updates of earlier ones come to them."""
    accuracies = controller.accuracies
    rows = {row["update"]: row for row in read_lines(directory.file("evaluations.jsonl"))}
    began_s = time.time() - seconds
    earlier_s = seconds_of(
        row for row in read_lines(directory.file("metrics.jsonl")) if row.get("time_s", began_s) < began_s
    )
    version = controller.buffer.version
    link = directory.file("model")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(Path("checkpoints") / f"update_{version:06d}")
    except OSError as error:
        raise RunDirectoryError(f"{link} cannot be written: {error.strerror}; the checkpoints are intact") from None
    summary = {
        "name": controller.recipe.name,
        "seed": controller.recipe.seed,
        "updates": version,
        "seconds": round(earlier_s + seconds, 1),
        "samples": controller.num_samples,
        "tokens": controller.num_tokens,
        "accuracy_before": accuracies.get(0),
        "accuracy_best": max(accuracies.values(), default=None),
        "accuracy_after": accuracies.get(version),
        "best_update": best_version(accuracies),
        "best_of_evaluations": len(accuracies),
        **{
            f"{name}_{when}": rows.get(update, {}).get(name)
            for name in ENDS
            for when, update in (("before", 0), ("after", version))
        },
        "dropped_groups": controller.buffer.dropped_counts(),
        "model": str(link),
    }
    write_json(directory.file("summary.json"), summary)
    return summary


def print_report(console: Console, directory: RunDirectory, summary: dict[str, Any]) -> None:
    """What the user came for: before, after, a few completions, and where everything is."""
    first, last = 0, summary["updates"]
    evaluations = {row["update"]: row for row in read_lines(directory.file("evaluations.jsonl"))}
    console.print(_figures(evaluations.get(first, {}), evaluations.get(last, {}), summary))
    if evaluations:
        console.print(_completions(directory, first, last))
        curve = [row["accuracy"] for row in evaluations.values()]
        console.print("± is half of a 95 % interval, over prompts", style="dim")
        console.print(f"held-out accuracy  {sparkline(curve)}  {' → '.join(f'{value:.0%}' for value in curve)}")
    else:
        rewards = [row["reward_mean"] for row in read_lines(directory.file("metrics.jsonl"))]
        console.print(f"no prompt is held out; training reward  {sparkline(rewards)}")
    for what, where in (
        ("trained model", summary["model"]),
        ("metrics", directory.file("metrics.jsonl")),
        ("rollouts", directory.rollouts),
        ("summary", directory.file("summary.json")),
    ):
        console.print(f"[dim]{what:>14}[/dim]  {escape(str(where))}", soft_wrap=True)
    if _is_of_shipped_tasks(directory):
        console.print(OWN_PROBLEM, soft_wrap=True, markup=False)


def _is_of_shipped_tasks(directory: RunDirectory) -> bool:
    """Whether all that it was trained on are tasks that come with rayzero: its user has yet to train on their own."""
    train = ((directory.recipe() or {}).get("data") or {}).get("train") or [{}]
    return all(str(source.get("function", "")).startswith(SHIPPED_TASKS) for source in train)


def _figures(before: dict[str, Any], after: dict[str, Any], summary: dict[str, Any]) -> Table:
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    table = Table(title=f"{summary['updates']} updates, {summary['samples']} samples, {minutes} min {seconds} s")
    for name in ("held-out", "before", "after"):
        table.add_column(name, justify="left" if name == "held-out" else "right")
    rows = (
        ("accuracy, as sampled", "accuracy", ".1%"),
        ("accuracy, greedy", "greedy_accuracy", ".1%"),
        (f"right in one of {before.get('num_completions', 1)} (pass@k)", "pass_at_k", ".1%"),
        ("reward", "reward_mean", ".3f"),
        ("tokens a completion", "completion_tokens_mean", ".1f"),
    )
    errors = {
        "accuracy": "standard_error",
        "greedy_accuracy": "greedy_standard_error",
        "pass_at_k": "pass_at_k_standard_error",
    }
    for label, key, form in rows:
        if key in before and key in after:
            cells = [with_interval(row[key], row.get(errors.get(key, "")), form) for row in (before, after)]
            table.add_row(label, *cells, style="bold" if key == "accuracy" else "")
    return table


def _completions(directory: RunDirectory, first: int, last: int) -> Table:
    """The same held-out prompts before and after; those that changed come first."""
    before, after = (
        {
            row["prompt_id"]: row
            for row in read_lines(directory.rollouts / f"evaluation_{update:06d}.jsonl")
            if row["index"] == 0
        }
        for update in (first, last)
    )
    shared = [key for key in before if key in after]
    shared.sort(key=lambda key: before[key]["status"] == after[key]["status"])
    table = Table(title="the same held-out prompts, before and after", show_lines=True)
    for name in ("prompt", "answer", "before", "after"):
        table.add_column(name, overflow="fold")
    for key in shared[:SHOWN_COMPLETIONS]:
        asked = (before[key]["messages"][-1]["content"], str(before[key]["answer"]))  # of a program: all its tests
        table.add_row(*(escape(shortened(text)) for text in asked), _judged(before[key]), _judged(after[key]))
    return table


def _judged(row: dict[str, Any]) -> str:
    mark = {"correct": "[green]✓[/green]", "wrong": "[red]✗[/red]"}.get(row["status"], "[yellow]?[/yellow]")
    return f"{mark} {escape(shortened(row['completion']))}"
