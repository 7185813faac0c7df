"""`rayzero runs prune`: removes old run directories. Without `--yes` it shows them."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from rayzero.services.cli.client import live_run
from rayzero.services.observe.text import as_size
from rayzero.services.schema.errors import UsageError
from rayzero.services.schema.terminal import terminal
from rayzero.services.store.api_file import ADDRESS_FILE
from rayzero.services.store.run_directory import RunDirectory

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that may go."""

    directory: RunDirectory
    changed_s: float
    num_bytes: int

    @property
    def state(self) -> str:
        """`finished`, or `stopped` where the same command would go on."""
        return "finished" if self.directory.is_finished() else "stopped"


def prune(runs: Path, keep: int | None, older_than: float | None, unfinished: bool, yes: bool, as_json: bool) -> None:
    """Remove finished runs below `runs` (with `unfinished` stopped ones, too) that are older than so many days and not
    among the newest `keep`. A run that is live is never touched.

    Raises:
        UsageError: neither limit is given.
    """
    if keep is None and older_than is None:
        raise UsageError("say what is old: --keep 10 (the newest ten stay), --older-than 30 (days), or both")
    found = sorted(_old_runs(runs, unfinished), key=lambda run: run.changed_s, reverse=True)
    limit_s = time.time() - (older_than or 0.0) * DAY_S
    chosen = [run for run in found[keep or 0 :] if run.changed_s <= limit_s]
    removed = [run for run in chosen if yes and _remove(run.directory)]
    if as_json:
        rows = [{"run": str(run.directory.path), "state": run.state if not yes else "removed", "bytes": run.num_bytes}
                for run in (removed if yes else chosen)]  # fmt: skip
        print(json.dumps(rows))
        return
    console = terminal()
    table = Table(box=None, padding=(0, 2))
    for name in ("run", "last change", "size"):
        table.add_column(name)
    for run in removed if yes else chosen:
        days = (time.time() - run.changed_s) / DAY_S
        table.add_row(escape(run.directory.path.name), f"{days:.1f} days ago", as_size(run.num_bytes))
    console.print(table if chosen else f"no run below {escape(str(runs))} is that old")
    if chosen and not yes:
        console.print(f"{as_size(sum(run.num_bytes for run in chosen))} in all; --yes removes them", style="yellow")
    for run in chosen:
        if yes and run not in removed:
            console.print(f"{escape(run.directory.path.name)} is in use by now and stays", style="yellow")


def _old_runs(runs: Path, unfinished: bool) -> Iterator[OldRun]:
    for file in runs.glob("*/recipe.yaml"):
        folder = file.parent
        if folder.is_symlink() or not (folder / "run.lock").is_file():  # another's, or none of ours
            continue
        directory = RunDirectory(folder)
        if not (directory.is_finished() or unfinished) or live_run(directory.file(ADDRESS_FILE)) is not None:
            continue
        with _locked(directory) as is_free:
            if is_free:
                files = [found.lstat() for found in folder.rglob("*") if not found.is_dir() or found.is_symlink()]
                changed_s = max((found.st_mtime for found in files), default=folder.stat().st_mtime)
                yield OldRun(directory, changed_s, sum(found.st_size for found in files))


def _remove(directory: RunDirectory) -> bool:
    """Whether it could be: a run that has begun there since is left alone."""
    with _locked(directory) as is_free:
        if is_free:
            shutil.rmtree(directory.path)
        return is_free


@contextmanager
def _locked(directory: RunDirectory) -> Iterator[bool]:
    """Hold a run's lock, as the run itself would; False where a run has it."""
    with open(directory.file("run.lock"), "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
