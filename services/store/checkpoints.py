"""Checkpoints on disk: how they are sealed, verified against their manifest, and chosen for a resume.

Policy, optimizer, RNG, data cursor, buffer and counters are saved together or not at all.

checkpoints/update_000020/
  config.json model.safetensors tokenizer…   Hugging Face format: from_pretrained and vLLM load the directory as it is
  state/learner.pt, state/part_0000.pt, …    optimizer, RNG, schedule (learner/update/checkpoint.py)
  state/run.json, state/run.safetensors      buffer with finished and in-flight groups, cursor, counters
  manifest.json                              size and xxh3 of every file: a torn or flipped one is found out

The manifest finds accidents. Against a hand that changes files and manifest it proves nothing: so no file of a
checkpoint can bring code to run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from rayzero.services.schema.errors import RayzeroError, RunDirectoryError
from rayzero.services.store.run_directory import write_json
from rayzero.services.store.run_state import FindPrompt, read_state

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SCHEMA = 3
"""Of what a checkpoint holds beside the model: raised when an older one cannot be resumed from any more."""


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over.

    Raises:
        RunDirectoryError: it was written with another schema.
    """
    for path in reversed(checkpoints_in(folder)):
        problem = find_damage(path)
        if problem is None:
            check_schema(path)
            return path
        logger.warning("checkpoint %s is damaged (%s): using the one before it", path.name, problem)
    return None


def checkpoints_in(folder: Path) -> list[Path]:
    """All of them, whole or damaged, the oldest first. By number: `update_1000000` comes after `update_999999`."""
    named = (path for path in folder.glob("update_*") if path.name.removeprefix("update_").isdecimal())
    return sorted(named, key=version_of)


def check_schema(path: Path) -> None:
    """Refuse a whole checkpoint whose state this version of rayzero cannot read.

    Raises:
        RunDirectoryError: says how to go on with the model that it holds.
    """
    schema = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("schema", 1)
    if schema != SCHEMA:
        raise RunDirectoryError(
            f"checkpoint {path} has schema {schema}, and this version of rayzero resumes from schema {SCHEMA} alone: "
            f"start a new run from its weights with model.path={path}, or resume it with the version that wrote it"
        )


def version_of(path: Path) -> int:
    """The learner's version that a checkpoint's directory is named after."""
    return int(path.name.removeprefix("update_"))


def restore_run(path: Path, find: FindPrompt, load: Callable[[dict[str, Any]], None]) -> None:
    """Give `load` the controller's part of a checkpoint that `find_damage` has passed; `find` gives a prompt by its id.

    Raises:
        RunDirectoryError: it is not what a run has written.
        RecipeError: the training prompts changed since.
    """
    try:
        load(read_state(path / "state", find))
    except RayzeroError:
        raise
    except Exception as error:  # whatever a file that was tampered with leads to
        raise RunDirectoryError(
            f"the run's state in checkpoint {path} is not what a run has written ({error!r:.200}): remove the "
            f"checkpoint to go on from the one before it, or start a new run from its weights with model.path={path}"
        ) from None


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files: dict[str, dict[str, Any]] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"] or _digest(file) != expected["xxh3"]:
                return f"{name} is not what was saved"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
    return None


def seal(path: Path, facts: dict[str, Any]) -> None:
    """Sync every file and write the manifest last."""
    files = {}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
        files[str(file.relative_to(path))] = {"bytes": file.stat().st_size, "xxh3": _digest(file)}
    write_json(path / MANIFEST, {"schema": SCHEMA, **facts, "files": files})
    sync_directory(path)


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return str(hashlib.file_digest(stream, xxhash.xxh3_64).hexdigest())


def sync_directory(path: Path) -> None:
    """Make the names in a directory as safe as the files: a crash could otherwise lose a rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
