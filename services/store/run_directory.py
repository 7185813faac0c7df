"""One run on disk: where everything is, who may write to it, and which run a recipe continues.

runs/<name>/
  recipe.yaml           resolved recipe          ledger.jsonl        every group's admission and end
  metrics.jsonl         one line an update       evaluations.jsonl   one line an evaluation
  rollouts/             every completion         checkpoints/        Hugging Face format, loadable as they are
  logs/<actor>.log      a log an actor           summary.json        when the run has ended
  label                 its name in metrics
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RunDirectoryError, UsageError
from rayzero.services.schema.plain import json_text

LABEL_FILE = "label"


class RunDirectory:
    """Paths of one run. `open` and `create` take the lock: two runs never write into one directory."""

    def __init__(self, path: Path) -> None:
        """`path` is made absolute: actors on other nodes and in other working directories are given it."""
        self.path = path.resolve()
        self._lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        """One directory a checkpoint."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """One file an actor."""
        return self.path / "logs"

    @property
    def rollouts(self) -> Path:
        """One file an update."""
        return self.path / "rollouts"

    @property
    def label(self) -> str:
        """The run's name in metrics: no other directory has it, be it of the same recipe, elsewhere, or the same path
        made anew. `prepare` gives it."""
        file = self.file(LABEL_FILE)
        return file.read_text(encoding="utf-8").strip() if file.is_file() else self.path.name

    def file(self, name: str) -> Path:
        """A file at the top of the run directory."""
        return self.path / name

    def prepare(self, recipe: Recipe) -> None:
        """Make the directory, take its lock and write the resolved recipe.

        Raises:
            RunDirectoryError: not writable, full, or in use by another process.
        """
        try:
            for folder in (self.path, self.checkpoints, self.logs, self.rollouts):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_atomically(self.file("recipe.yaml"), text)
            if not self.file(LABEL_FILE).is_file():
                write_atomically(self.file(LABEL_FILE), f"{self.path.name}-{secrets.token_hex(3)}\n")
        except OSError as error:
            raise RunDirectoryError(
                f"run directory {self.path} cannot be written: {error.strerror}; choose another with --run-dir"
            ) from None

    def release(self) -> None:
        """Let the next run have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def recipe(self) -> Mapping[str, Any] | None:
        """The resolved recipe it was made with, as plain data; None in a new directory."""
        file = self.file("recipe.yaml")
        return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None

    def is_finished(self) -> bool:
        """Whether the run in it came to its end."""
        return self.file("summary.json").is_file()

    def has_checkpoint(self) -> bool:
        """Whether there is anything to continue from."""
        return self.checkpoints.is_dir() and any(self.checkpoints.glob("update_*"))

    def _take_lock(self) -> None:
        lock = open(self.file("run.lock"), "w", encoding="utf-8")  # noqa: SIM115 (held until release)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunDirectoryError(
                f"run directory {self.path} is in use by another rayzero process; stop it or choose another --run-dir"
            ) from None
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock


def choose_run_directory(recipe: Recipe, root: Path, explicit: Path | None, fresh: bool) -> tuple[RunDirectory, bool]:
    """The directory to use and whether the run in it is continued.

    The same command continues an unfinished run of the same recipe; a finished one is left as it is and a numbered
    directory made beside it. `fresh` never continues.

    Raises:
        UsageError: an explicit directory holds another run, or a finished one.
    """
    if explicit is not None:
        directory = RunDirectory(explicit)
        if directory.recipe() is None:
            return directory, False
        if fresh or directory.is_finished():
            raise UsageError(
                f"--run-dir {explicit} holds a {'finished ' * directory.is_finished()}run; name a new directory"
            )
        if difference := _difference(directory, recipe):
            raise UsageError(f"--run-dir {explicit} holds a run of another recipe ({difference}); name a new directory")
        return directory, directory.has_checkpoint()
    number = 1
    while True:
        directory = RunDirectory(root / (recipe.name if number == 1 else f"{recipe.name}-{number}"))
        if directory.recipe() is None:
            return directory, False
        continuable = not directory.is_finished() and directory.has_checkpoint() and not _difference(directory, recipe)
        if continuable and not fresh:
            return directory, True
        number += 1


def _difference(directory: RunDirectory, recipe: Recipe) -> str:
    """The first key in which two recipes differ, for the message; empty when they are equal."""
    old, new = dict(directory.recipe() or {}), recipe.model_dump(mode="json")
    for watching in (old, new):
        watching.pop("observe", None)  # how a run is watched changes nothing in it
    return _first_difference(old, new, "")


def _first_difference(old: Any, new: Any, key: str) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            if found := _first_difference(old.get(name), new.get(name), f"{key}.{name}" if key else str(name)):
                return found
        return ""
    return "" if old == new else f"{key} was {old!r} and is {new!r}"


def write_atomically(path: Path, text: str, *, private: bool = False) -> None:
    """All of it or nothing: a reader never sees half a file, a full disk leaves the old one. `private`: for this user
    alone.

    Raises:
        RunDirectoryError: the disk is full or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
                if private:
                    os.fchmod(file.fileno(), 0o600)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}") from None


def write_json(path: Path, content: Any) -> None:
    """`write_atomically`, as indented JSON."""
    write_atomically(path, json_text(content, indent=2) + "\n")
