"""Atomic run state: policy, optimizer, RNG, data cursor, buffer and counters are saved together or not at all.

checkpoints/update_000020/
  config.json model.safetensors tokenizer…   Hugging Face format: from_pretrained and vLLM load the directory as it is
  state/learner.pt, state/part_0000.pt, …    optimizer, RNG, schedule (learner/update/checkpoint.py)
  state/run.pkl                              buffer with finished and in-flight groups, cursor, counters
  manifest.json                              size and xxh3 of every file: a torn or flipped one is found out
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from rayzero.services.loop.controller import Controller
from rayzero.services.schema.errors import RunDirectoryError
from rayzero.services.schema.interfaces import LearnerHandle
from rayzero.services.store.run_directory import write_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(slots=True)
class Checkpointer:
    """Saves, finds and prunes the checkpoints of one run."""

    folder: Path
    learner: LearnerHandle
    keep_last: int

    async def save(self, controller: Controller, accuracy: float | None) -> None:
        """Write `update_<version>`: into a temporary directory, synced to disk, then renamed.

        Raises:
            RunDirectoryError: the disk is full or the folder not writable; earlier checkpoints are untouched.
        """
        version = controller.buffer.version
        final = self.folder / f"update_{version:06d}"
        temporary = self.folder / f".update_{version:06d}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / "state").mkdir(parents=True)
            state = pickle.dumps(controller.state_dict())
            await self.learner.save_checkpoint(str(temporary))
            (temporary / "state" / "run.pkl").write_bytes(state)
            await asyncio.to_thread(_seal, temporary, {"update": version, "accuracy": accuracy})
            if final.exists():
                shutil.rmtree(final)
            temporary.replace(final)
            _sync_directory(self.folder)
        except (OSError, RunDirectoryError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            why = getattr(error, "strerror", None) or error
            raise RunDirectoryError(
                f"checkpoint {final} cannot be written: {why}; the one before it is intact"
            ) from None
        self._prune()

    def best(self) -> Path | None:
        """The one with the highest held-out accuracy; the newer of equals."""
        rated = [(accuracy_of(path), path) for path in sorted(self.folder.glob("update_*"))]
        known = [(accuracy, path) for accuracy, path in rated if accuracy is not None]
        return max(known, key=lambda item: (item[0], item[1].name))[1] if known else None

    def _prune(self) -> None:
        paths = sorted(self.folder.glob("update_*"))
        keep = {*paths[-self.keep_last :], self.best()}
        left_by_kills = self.folder.glob(".update_*.tmp")
        for path in (*left_by_kills, *(path for path in paths if path not in keep)):
            shutil.rmtree(path, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over."""
    for path in sorted(folder.glob("update_*"), reverse=True):
        problem = find_damage(path)
        if problem is None:
            return path
        logger.warning("checkpoint %s is damaged (%s): using the one before it", path.name, problem)
    return None


def version_of(path: Path) -> int:
    """The learner's version that a checkpoint's directory is named after."""
    return int(path.name.removeprefix("update_"))


def load_run_state(path: Path) -> dict[str, Any]:
    """The controller's part of a checkpoint that `find_damage` has passed."""
    state: dict[str, Any] = pickle.loads((path / "state" / "run.pkl").read_bytes())
    return state


def accuracy_of(path: Path) -> float | None:
    """Held-out accuracy noted with a checkpoint, if it was evaluated."""
    try:
        accuracy: float | None = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["accuracy"]
    except (OSError, ValueError, KeyError):
        return None
    return accuracy


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files: dict[str, dict[str, Any]] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"] or _digest(file) != expected["xxh3"]:
            return f"{name} is not what was saved"
    return None


def _seal(path: Path, facts: dict[str, Any]) -> None:
    """Sync every file and write the manifest last."""
    files = {}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
        files[str(file.relative_to(path))] = {"bytes": file.stat().st_size, "xxh3": _digest(file)}
    write_json(path / MANIFEST, {**facts, "files": files})
    _sync_directory(path)


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_64).hexdigest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
