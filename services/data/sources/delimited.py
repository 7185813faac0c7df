"""Rows of CSV and TSV files whose first line names the columns, read where they lie. Every value is text."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rayzero.services.data.formats.problem import Values
from rayzero.services.data.sources.files import HeldFile, files_of
from rayzero.services.data.sources.rows import Row
from rayzero.services.data.sources.table import RowTable, TablesInTurn
from rayzero.services.schema.config.data import CsvSource
from rayzero.services.schema.errors import RecipeError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
MAX_FIELD_CHARS = 2**27
"""Tests of programs are long; the default of Python's reader is 128 KiB."""


def read(settings: CsvSource) -> RowTable:
    """The rows in order.

    Raises:
        RecipeError: a file cannot be read, has no line of names, or is no UTF-8 CSV; names file and line.
    """
    tables = [DelimitedFile(file, settings.kind, settings.delimiter) for file in files_of(settings.path, SUFFIXES)]
    return tables[0] if len(tables) == 1 else TablesInTurn(tables)


class DelimitedFile(RowTable):
    """One file. Records are found once, quotes and line ends within them included, and read as they are asked for."""

    def __init__(self, path: Path, kind: str, delimiter: str | None) -> None:
        """Raises RecipeError."""
        self._path = path
        self._delimiter = delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        self._file = HeldFile(path, kind)
        self._starts = array("Q")
        """Of each record the byte and the line that it starts at, in turn."""
        csv.field_size_limit(MAX_FIELD_CHARS)
        self.num_bytes = self._find_records()

    def __len__(self) -> int:
        return len(self._starts) // 2

    def __getitem__(self, index: int) -> Row:
        start, origin = self._starts[2 * index], self.origin(index)
        end = self._starts[2 * index + 2] if 2 * index + 2 < len(self._starts) else self.num_bytes
        record = self._file.read(start, end)
        try:
            fields = next(csv.reader(io.StringIO(record.decode(), newline=""), delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise RecipeError(f"{origin}: not UTF-8 text (byte {error.start} of the record)") from None
        except csv.Error as error:
            raise RecipeError(f"{origin}: {_explain(error)}") from None
        if len(fields) != len(self._names):
            raise RecipeError(
                f"{origin}: {len(fields)} fields under {len(self._names)} column names: quote a field that holds the "
                "delimiter, or give each row all fields"
            )
        return Row(number=index + 1, origin=origin, values=dict(zip(self._names, fields, strict=True)))

    def origin(self, index: int) -> str:
        """As the base says."""
        return f"{self._path}:{self._starts[2 * index + 1]}"

    def values(self) -> Iterator[Values]:
        """As the base says."""
        with self._file.lines() as file:
            lines = _Lines(file)
            records = filter(None, csv.reader(lines, delimiter=self._delimiter, strict=True))
            try:
                next(records)
                for place, record in enumerate(records):
                    is_sound = len(record) == len(self._names) and not any("\ufffd" in field for field in record)
                    yield dict(zip(self._names, record, strict=True)) if is_sound else self[place].values
            except csv.Error as error:
                raise RecipeError(f"{self._path}:{lines.number}: {_explain(error)}") from None

    def _find_records(self) -> int:
        with self._file.lines() as file:
            lines = _Lines(file)
            try:
                return self._note_records(lines)
            except csv.Error as error:
                raise RecipeError(f"{self._path}:{lines.number}: {_explain(error)}") from None

    def _note_records(self, lines: _Lines) -> int:
        records = csv.reader(lines, delimiter=self._delimiter)
        names = [name.removeprefix("\ufeff").strip() for name in next(records, [])]
        if not any(names):
            raise RecipeError(f"prompts file {self._path} is empty: its first line must name the columns")
        if len(set(names)) < len(names):
            raise RecipeError(f"{self._path}:1: a column name stands there twice: {', '.join(names)}")
        self._names = names
        start, line = lines.num_bytes, lines.number + 1
        for record in records:
            if record:
                self._starts.extend((start, line))
            start, line = lines.num_bytes, lines.number + 1
        return lines.num_bytes


class _Lines:
    """A file's lines as text, and how many bytes and lines they took so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.num_bytes = self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.num_bytes += len(line)
            self.number += 1
            yield line.decode("utf-8", "replace")  # what is no UTF-8 is refused by its row


def _explain(error: csv.Error) -> str:
    """What Python's reader says, with what to do."""
    if "unexpected end of data" in str(error):
        return 'no CSV: a quoted field is never closed: close it, or write each " within it twice'
    return f'no CSV: {error}: quote a field that holds the delimiter or a line break, and write each " in it twice'
