"""The files of a source: one, a directory's, or those that a pattern names; unpacked where they are gzipped."""

from __future__ import annotations

import glob
import gzip
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, BinaryIO

from rayzero.services.schema.errors import RecipeError

MAX_FILES = 200_000
"""Below a directory of prompts: `path: /` must not walk through a machine."""


def files_of(path: str, suffixes: Sequence[str]) -> list[Path]:
    """The file at `path`, the files with one of `suffixes` below the directory there, or what the pattern `path` names;
    in the order of their names.

    Raises:
        RecipeError: there is none.
    """
    there = Path(path).expanduser()
    if there.is_dir():
        found = _below(there, tuple(suffixes))
        if not found:
            raise RecipeError(f"prompts directory {there} holds no {' or '.join(suffixes)} file")
        return found
    if there.exists() or not glob.has_magic(path):
        return [there]
    found = sorted(Path(name) for name in glob.glob(str(there), recursive=True) if Path(name).is_file())
    if not found:
        raise RecipeError(f"prompts pattern {path}: no file has such a name{looked_in(there)}")
    return found


def looked_in(path: Path) -> str:
    """Of a file that is not there: where a relative path leads."""
    return "" if path.is_absolute() else f" (looked for in {Path.cwd()}, where the command runs)"


def _below(directory: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of the suffixes. What vanishes meanwhile, or may not be looked into, is passed over."""
    found, seen = [], 0
    for folder, _, names in os.walk(directory):
        seen += len(names)
        if seen > MAX_FILES:
            raise RecipeError(
                f"prompts directory {directory} holds more than {MAX_FILES:,} files: name one further down"
            )
        found += [file for name in names if name.endswith(suffixes) and (file := Path(folder) / name).is_file()]
    return sorted(found)


class HeldFile:
    """A file that is read for as long as a run, or what its gzip holds, unpacked into a file without a name."""

    def __init__(self, path: Path, kind: str) -> None:
        """Raises RecipeError where it cannot be read, or is no whole gzip."""
        if path.exists() and not path.is_file():  # a pipe has no end, or no second reading; a device neither
            raise RecipeError(f"prompts file {path} is no regular file: write what it gives into one, and name that")
        try:
            with _unpacked(path) if path.suffix == ".gz" else path.open("rb") as file:
                file.flush()
                self._fd = os.dup(file.fileno())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RecipeError(f"prompts file {path} is no whole gzip: {error}") from None
        except OSError as error:
            where = looked_in(path) if isinstance(error, FileNotFoundError) else ""
            raise RecipeError(
                f"prompts file {path} cannot be read: {error.strerror}{where}; correct `path` of this {kind} source"
            ) from None
        weakref.finalize(self, os.close, self._fd)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, wherever others read."""
        return os.pread(self._fd, end - start, start)

    def lines(self) -> BinaryIO:
        """The file from its beginning, with a place of its own in it."""
        return open(f"/proc/self/fd/{self._fd}", "rb")


def _unpacked(path: Path) -> IO[bytes]:
    """What a gzip holds, in a file that goes when this process does."""
    unpacked = tempfile.TemporaryFile(prefix="rayzero-")  # noqa: SIM115 - the caller closes it
    try:
        with gzip.open(path, "rb") as packed:
            shutil.copyfileobj(packed, unpacked, 2**20)
    except BaseException:
        unpacked.close()
        raise
    return unpacked
