"""Files of lines, read one by one and written whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class FileRefused(Exception):
    """A file cannot be opened; the message is fit for a terminal."""


class InputLines:
    """Numbered lines of a file or of standard input; blank lines are passed over."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._file: IO[bytes] = sys.stdin.buffer
        if self.name != "-":
            try:
                self._file = open(path, "rb")  # noqa: SIM115 - closed by __exit__
            except OSError as error:
                raise FileRefused(f"--in {path} cannot be read: {error.strerror}") from None

    def __enter__(self) -> InputLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self.name != "-":
            self._file.close()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for number, raw in enumerate(self._file, start=1):
            if raw.strip():
                yield number, raw

    def count(self) -> int | None:
        """How many lines there will be; None where that cannot be known."""
        if not self._file.seekable():
            return None
        total = sum(bool(raw.strip()) for raw in self._file)
        self._file.seek(0)
        return total


class OutputLines:
    """Writes beside the file and moves it into place when complete; streams to what is not a file."""

    def __init__(self, path: str | Path) -> None:
        self._target = Path(os.path.realpath(path))
        self._streams = str(path) == "-" or (self._target.exists() and not self._target.is_file())
        self._file: IO[bytes] = sys.stdout.buffer
        self.unfinished = str(path)
        if str(path) == "-":
            return
        if not self._streams:
            self.unfinished = f"{self._target}.partial"
        try:
            self._file = open(self._target if self._streams else self.unfinished, "wb")  # noqa: SIM115
        except OSError as error:
            raise FileRefused(f"--out {path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> OutputLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is sys.stdout.buffer:
            self._file.flush()
        else:
            self._file.close()

    def write(self, line: bytes) -> None:
        """One verdict."""
        self._file.write(line)
        if self._streams:
            self._file.flush()

    def complete(self) -> None:
        """Every verdict is written."""
        self._file.flush()
        if not self._streams:
            os.replace(self.unfinished, self._target)
