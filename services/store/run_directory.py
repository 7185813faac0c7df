"""One run on disk: where everything is, who may write to it, and which run a recipe continues.

runs/<name>/
  recipe.yaml           resolved recipe          ledger.jsonl        every group's admission and end
  metrics.jsonl         one line an update       evaluations.jsonl   one line an evaluation
  rollouts/             every completion         checkpoints/        Hugging Face format, loadable as they are
  logs/<actor>.log      a log an actor           summary.json        when the run has ended
  label                 its name in metrics      end.json            how its last attempt ended
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RunDirectoryError, UsageError
from rayzero.services.schema.plain import json_text
from rayzero.services.store.recipe_changes import changes, extends, refusal

LABEL_FILE = "label"
END_FILE = "end.json"


class RunDirectory:
    """Paths of one run. `prepare` takes the lock: two runs never write into one directory."""

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
            self.file("summary.json").unlink(missing_ok=True)  # of a run that was finished, and now ends later
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

    def is_run(self) -> bool:
        """Whether a run was begun in it: beside recipe.yaml there is what only a run writes."""
        written = (LABEL_FILE, "metrics.jsonl", "checkpoints", "rollouts", "logs")
        return self.file("recipe.yaml").is_file() and any(self.file(name).exists() for name in written)

    def is_finished(self) -> bool:
        """Whether the run in it came to its end."""
        return self.file("summary.json").is_file()

    def end(self) -> dict[str, Any]:
        """How its last attempt ended: `ended`, `error` and more. `running` stays there where it was killed; empty where
        none was written."""
        try:
            found = json.loads(self.file(END_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_in_use(self) -> bool:
        """Whether a process of this machine, or of one that shares the file system's locks, runs in it."""
        try:
            import fcntl
        except ImportError:
            return False  # a system without it runs nothing
        try:
            with open(self.file("run.lock"), encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def has_checkpoint(self) -> bool:
        """Whether there is anything to continue from."""
        return self.checkpoints.is_dir() and any(self.checkpoints.glob("update_*"))

    def _take_lock(self) -> None:
        import fcntl  # what only reads a run needs no locks, also where the system has none

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


class ChosenRun(NamedTuple):
    """Where a run goes."""

    directory: RunDirectory
    resume: bool
    """Whether the run in it is continued."""
    notes: tuple[str, ...] = ()
    """What the user is to know of it."""


def choose_run_directory(recipe: Recipe, root: Path, explicit: Path | None, fresh: bool) -> ChosenRun:
    """The directory to use and whether the run in it is continued.

    The same command continues an unfinished run, also where it is to be shown, paced or placed otherwise, and a
    finished one that is to end later; another finished one is left as it is and a numbered directory made beside it.
    `fresh` never continues.

    Raises:
        UsageError: an unfinished run there learns something else, or an explicit directory holds a finished one.
    """
    if explicit is not None:
        return _explicit(recipe, explicit, fresh)
    number, other = 1, None
    while True:
        directory = RunDirectory(root / (recipe.name if number == 1 else f"{recipe.name}-{number}"))
        if directory.recipe() is None:
            break
        if directory.has_checkpoint() and not fresh:
            why = _why_not(directory, recipe)
            if not why:
                return _continued(directory, recipe)
            other = other or (None if directory.is_finished() else (directory, why))
        number += 1
    if other is not None:
        unfinished, why = other
        raise UsageError(
            f"{unfinished.path} holds an unfinished run of another recipe ({why}): give its recipe to go on with it, "
            f"or --fresh to begin a new run in {directory.path.name} beside it"
        )
    return ChosenRun(directory, False)


def _explicit(recipe: Recipe, path: Path, fresh: bool) -> ChosenRun:
    directory = RunDirectory(path)
    if directory.recipe() is None:
        return ChosenRun(directory, False)
    if fresh:
        raise UsageError(f"--run-dir {path} holds a run; name a new directory")
    if why := _why_not(directory, recipe):
        kind = "a finished run" if directory.is_finished() else "a run of another recipe"
        raise UsageError(f"--run-dir {path} holds {kind} ({why}); name a new directory")
    if not directory.has_checkpoint():
        return ChosenRun(directory, False)
    return _continued(directory, recipe)


def _why_not(directory: RunDirectory, recipe: Recipe) -> str:
    """Why the run in a directory cannot go on with this recipe; empty when it can."""
    found = changes(directory.recipe() or {}, recipe)
    if refused := next(filter(None, (refusal(change, recipe) for change in found)), ""):
        return refused
    return "training.num_updates is not raised" if directory.is_finished() and not extends(found) else ""


def _continued(directory: RunDirectory, recipe: Recipe) -> ChosenRun:
    changed = changes(directory.recipe() or {}, recipe)
    return ChosenRun(directory, True, tuple(f"changed since it began: {change}" for change in changed))


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
