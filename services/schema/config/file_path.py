"""Paths in a recipe: what no file can be called is refused with its key, not by whatever opens it first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes, on Linux's file systems."""


def possible(path: str) -> str:
    """A path that a file may have, as it is.

    Raises:
        ValueError: it is too long, or holds a NUL; `~name` names no user; nothing tells where `~` is.
    """
    if "\x00" in path:
        raise ValueError("no file's name holds a NUL character")
    try:
        there = os.fsencode(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"{path.partition('/')[0]} is no user's home here: write the whole path") from None
    except UnicodeEncodeError:
        raise ValueError(f"no file's name holds half a character: {path!r}") from None
    if len(there) > LONGEST_PATH or max(map(len, there.split(b"/"))) > LONGEST_NAME:
        raise ValueError(f"{len(there)} bytes are too long for a file's name: {path[:40]!r}…")
    return path


FilePath = Annotated[str, Field(min_length=1), AfterValidator(possible)]
"""A file's, a directory's or a pattern's; hub ids and built-in names pass as well."""
HomePath = Annotated[FilePath, AfterValidator(os.path.expanduser)]
"""The same with `~` written out: what opens it does not know it."""
