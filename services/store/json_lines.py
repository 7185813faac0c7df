"""Files of one JSON object a line, in whole lines only."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayzero.services.schema.errors import RunDirectoryError


def _finite(value: Any) -> Any:
    """NaN and infinity as null, at any depth: JSON has neither, and a strict reader would refuse the whole line."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def append_lines(file: Path, rows: Sequence[dict[str, Any]], replace: bool = False) -> None:
    """Append whole lines, or put them in the place of the file: a kill then leaves the old file or the new one.

    Raises:
        RunDirectoryError: the disk is full or the file cannot be written; says which.
    """
    text = "".join(json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    written = file.with_name(f".{file.name}.{os.getpid()}.tmp") if replace else file
    try:
        with open(written, "w" if replace else "a", encoding="utf-8") as stream:
            stream.write(text)
        if replace:
            written.replace(file)
    except OSError as error:
        raise RunDirectoryError(f"{file} cannot be written: {error.strerror}; the last checkpoint is intact") from None


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that a kill cut short is left out."""
    if not file.is_file():
        return []
    rows = []
    # Not splitlines: a completion may hold U+2028, which JSON leaves as it is.
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
