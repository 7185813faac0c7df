"""Files of one JSON object a line, in whole lines only."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayzero.services.schema.errors import RunDirectoryError
from rayzero.services.schema.plain import json_text

logger = logging.getLogger(__name__)


def append_lines(file: Path, rows: Sequence[dict[str, Any]], replace: bool = False) -> None:
    """Append whole lines, or put them in the place of the file: a kill then leaves the old file or the new one.

    Whatever the rows hold can be written. What a full disk cut short is taken back: the lines before it stay whole.

    Raises:
        RunDirectoryError: the disk is full or the file cannot be written; says which.
    """
    content = "".join(json_text(row) + "\n" for row in rows).encode()
    try:
        if replace:
            replace_file(file, content)
        else:
            _append(file, content)
    except OSError as error:
        raise RunDirectoryError(f"{file} cannot be written: {error.strerror}; the last checkpoint is intact") from None


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All whole lines. A last one that a kill cut short is left out, one that is damaged is passed over and logged."""
    if not file.is_file():
        return []
    rows = []
    # Not splitlines: a completion may hold U+2028, which JSON leaves as it is.
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            logger.warning("%s:%d is damaged and passed over: %s", file, number, error)
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            logger.warning("%s:%d is no JSON object and passed over", file, number)
    return rows


def _append(file: Path, content: bytes) -> None:
    with open(file, "ab", buffering=0) as stream:
        size = stream.tell()
        try:
            _write_all(stream.fileno(), (b"" if _ends_a_line(file, size) else b"\n") + content)
        except OSError:
            if file.is_file():  # no device
                os.ftruncate(stream.fileno(), size)
            raise


def replace_file(file: Path, content: bytes) -> None:
    """All of it or nothing: a full disk leaves the old one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _ends_a_line(file: Path, size: int) -> bool:
    """Else a kill cut its last line short, and the next one would be lost behind it."""
    if size == 0:
        return True
    with open(file, "rb") as stream:
        stream.seek(size - 1)
        return stream.read(1) == b"\n"


def _write_all(descriptor: int, content: bytes) -> None:
    """A disk that fills up takes a part first, and refuses the rest."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
