"""Rows of files with one JSON object a line, read where they lie: of each line only its place is in memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from rayzero.services.data.formats.problem import Values
from rayzero.services.data.sources.files import HeldFile, files_of
from rayzero.services.data.sources.rows import Row
from rayzero.services.data.sources.table import RowTable, TablesInTurn
from rayzero.services.schema.config.data import JsonLinesSource
from rayzero.services.schema.errors import RecipeError

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def read(settings: JsonLinesSource) -> RowTable:
    """The rows; blank lines are skipped.

    Raises:
        RecipeError: a file cannot be read. A line that is no JSON object is refused when it is asked for.
    """
    tables = [JsonLines(file, settings.kind) for file in files_of(settings.path, SUFFIXES)]
    return tables[0] if len(tables) == 1 else TablesInTurn(tables)


class JsonLines(RowTable):
    """One file. Its lines are found once, and read as they are asked for."""

    def __init__(self, path: Path, kind: str) -> None:
        """Raises RecipeError where the file cannot be read."""
        self._path = path
        self._file = HeldFile(path, kind)
        self._starts = array("Q")
        """Of each row the byte that it starts at and the number of its line, in turn."""
        self.num_bytes = self._find_lines()

    def __len__(self) -> int:
        return len(self._starts) // 2

    def __getitem__(self, index: int) -> Row:
        start, number = self._starts[2 * index], self._starts[2 * index + 1]
        end = self._starts[2 * index + 2] if 2 * index + 2 < len(self._starts) else self.num_bytes
        return self._row(number, self._file.read(start, end))

    def origin(self, index: int) -> str:
        """As the base says."""
        return f"{self._path}:{self._starts[2 * index + 1]}"

    def __iter__(self) -> Iterator[Row]:
        return (self._row(number, line) for number, line in self._lines())

    def values(self) -> Iterator[Values]:
        """As the base says."""
        for number, line in self._lines():
            try:
                values = from_json(line, cache_strings="keys")
            except ValueError:
                values = None
            yield values if type(values) is dict else parse(line, f"{self._path}:{number}")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._file.lines() as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, line

    def _find_lines(self) -> int:
        end = 0
        with self._file.lines() as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    self._starts.extend((end, number))
                end += len(line)
        return end

    def _row(self, number: int, line: bytes) -> Row:
        origin = f"{self._path}:{number}"
        return Row(number=number, origin=origin, values=parse(line, origin))


def parse(line: bytes, origin: str) -> dict[str, Any]:
    """The object on a line. Raises RecipeError, naming `origin`."""
    try:
        values = from_json(line, cache_strings="keys")
    except ValueError:
        values = _slowly(line, origin)  # the message of Python's own parser names the place
    if not isinstance(values, dict):
        raise RecipeError(f'{origin}: a line must be a JSON object like {{"prompt": …, "answer": …}}')
    return values


def _slowly(line: bytes, origin: str) -> Any:
    try:
        values = json.loads(line.decode("utf-8-sig").strip("\n\r "))
        json.dumps(values, ensure_ascii=False).encode()
        return values
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise RecipeError(f"{origin}: {half} is half a character, which no tokenizer takes: remove it") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{origin}: not UTF-8 text (byte {error.start} of the line)") from None
    except json.JSONDecodeError as error:
        raise RecipeError(
            f"{origin}: not valid JSON: {error.msg} at column {error.colno}; fix or remove the line"
        ) from None
    except RecursionError:
        raise RecipeError(f"{origin}: JSON nested too deeply; fix or remove the line") from None
    except ValueError:
        raise RecipeError(f"{origin}: an integer of more than 4,300 digits; write it as text") from None
