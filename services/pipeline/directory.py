"""A pipeline on disk. A stage's directory is named by its fingerprint: a changed stage gets a new one, and going back
to the old settings finds the old result.

runs/<pipeline>/
  pipeline.yaml                       the recipe as it was given, overrides applied
  report.md report.html report.png    what each stage added
  stages/<stage>/<fingerprint>/
    stage.json                        state, inputs with checksums, artefact with checksum, figures
    recipe.yaml                       resolved                  work/    what only a resume needs
    model/ | dataset.jsonl | reward_model/ | results.json       the artefact
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from rayzero.services.pipeline.fingerprints import digest
from rayzero.services.schema.errors import RunDirectoryError
from rayzero.services.store.run_directory import write_atomically, write_json


@dataclass(frozen=True, slots=True)
class StageDirectory:
    """Where one stage works and what it has left."""

    path: Path

    @property
    def work(self) -> Path:
        """Checkpoints, shards, logs: whatever the stage resumes from."""
        return self.path / "work"

    def record(self) -> dict[str, Any]:
        """stage.json; empty where the stage never began."""
        try:
            content: dict[str, Any] = json.loads((self.path / "stage.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content

    def write_record(self, record: Mapping[str, Any]) -> None:
        """All of it or nothing."""
        write_json(self.path / "stage.json", record)

    def artefact(self) -> Path | None:
        """What the stage wrote, if it is finished and still as it was written."""
        record = self.record()
        if record.get("state") != "done":
            return None
        path = self.path / str(record["artefact"]["path"])
        return path if path.exists() and digest(path) == record["artefact"]["digest"] else None


class PipelineDirectory:
    """One pipeline's directory; `take_lock` keeps a second process out of it."""

    def __init__(self, path: Path) -> None:
        """`path` is made absolute: actors are given paths below it."""
        self.path = path.resolve()
        self._lock: IO[str] | None = None

    def stage(self, name: str, fingerprint: str) -> StageDirectory:
        """The directory of a stage with these settings and inputs."""
        return StageDirectory(self.path / "stages" / name / fingerprint)

    def content(self) -> dict[str, Any] | None:
        """The recipe that it keeps; None in a new directory."""
        file = self.path / "pipeline.yaml"
        return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None

    def has_others(self, name: str, fingerprint: str) -> bool:
        """Whether the stage was begun with other settings or inputs."""
        return any(path.name != fingerprint for path in (self.path / "stages" / name).glob("*/"))

    def prepare(self, content: Mapping[str, Any]) -> None:
        """Make it, take its lock and keep the pipeline's recipe.

        Raises:
            RunDirectoryError: it cannot be written, or is in use.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            write_atomically(self.path / "pipeline.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path} cannot be written: {error.strerror}; choose another with --run-dir"
            ) from None

    def release(self) -> None:
        """Let the next process have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        lock = open(self.path / "pipeline.lock", "w", encoding="utf-8")  # noqa: SIM115 (held until release)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunDirectoryError(
                f"{self.path} is in use by another rayzero process; stop it or choose another --run-dir"
            ) from None
        self._lock = lock


def publish(target: Path, fill: Callable[[Path], None]) -> Path:
    """A directory that appears whole or not at all: `fill` writes into a temporary one."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    fill(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    return target


def publish_model(source: Path, target: Path) -> Path:
    """A checkpoint's model without what only a resume needs; files are linked where the disk can."""

    def fill(directory: Path) -> None:
        for file in sorted(source.resolve().iterdir()):
            if not file.is_file() or file.name == "manifest.json":
                continue
            try:
                os.link(file, directory / file.name)
            except OSError:
                shutil.copyfile(file, directory / file.name)

    return publish(target, fill)
