"""`rayzero runs compare`: what runs set differently and what came of it, as tables or as one page with their curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from rayzero.services.cli.client import find_directory
from rayzero.services.cli.page_data import page_data
from rayzero.services.cli.run_list import describe, figures, shown
from rayzero.services.observe.browse.page import file_page
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.json_lines import read_lines
from rayzero.services.store.run_directory import RunDirectory, write_atomically

COMPARED = (
    "reward_mean",
    "train_accuracy",
    "entropy",
    "kl_rollout",
    "grad_norm",
    "completion_tokens_mean",
    "truncated_share",
    "staleness_mean",
    "update_s",
    "sync_s",
    "wait_s",
)


def compare_runs(names: Sequence[str], runs: Path, as_json: bool, html: Path | None) -> None:
    """What the recipes set differently, and what came of it (means of the last ten updates).

    Raises:
        UsageError: fewer than two runs, or no such run.
    """
    if len(names) < 2:
        raise UsageError("name two runs or more: rayzero runs compare demo demo-2 (rayzero runs ls has their names)")
    directories = [RunDirectory(find_directory(run, runs)) for run in names]
    if html is not None:
        first, *others = directories
        write_atomically(html, file_page(page_data(first, Filter(), "newest", (), {}, others)))
        print(f"{html}: the curves of {len(directories)} runs", file=sys.stderr)
        return
    settings = settings_that_differ([directory.recipe() or {} for directory in directories])
    found = {name: [_recent(directory, name) for directory in directories] for name in COMPARED} | {
        f"held-out accuracy, {label}": [describe(directory)[name] for directory in directories]
        for label, name in (
            ("before", "accuracy_before"),
            ("best (chosen by it)", "accuracy_best"),
            ("last", "accuracy_last"),
            ("greedy, before", "greedy_before"),
            ("greedy, last", "greedy_last"),
        )
    }
    if as_json:
        print(json.dumps({"settings": settings, "figures": found}))
        return
    console = terminal()
    for title, rows in (("settings that differ", settings), ("means of the last ten updates", found)):
        table = Table(title=title)
        for name in ("", *(directory.path.name for directory in directories)):
            table.add_column(name, overflow="fold")
        for name, values in rows.items():
            table.add_row(name, *(escape(shown(value)) for value in values))
        console.print(table if rows else f"{title}: none")


def settings_that_differ(recipes: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Every dotted key at which not all recipes are equal, with the value of each."""
    keys = dict.fromkeys(key for old, new in pairwise(recipes) for key, _ in differences(old, new))
    return {key: [_at(recipe, key) for recipe in recipes] for key in keys}


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every dotted key at which two plain structures differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield key, [old, new]


def _at(value: Any, key: str) -> Any:
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _recent(directory: RunDirectory, name: str) -> float | None:
    values = figures(read_lines(directory.file("metrics.jsonl"))[-10:], name)
    return sum(values) / len(values) if values else None
