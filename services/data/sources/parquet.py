"""Rows of parquet files, by row groups: each is unpacked once, into a file without a name, and read from there."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from rayzero.services.data.formats.problem import Values
from rayzero.services.data.sources.files import files_of, looked_in
from rayzero.services.data.sources.rows import Row
from rayzero.services.data.sources.table import RowTable, TablesInTurn
from rayzero.services.schema.config.data import ParquetSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.extras import require

BATCH_ROWS = 1024


def read(settings: ParquetSource) -> RowTable:
    """The rows in order; a batch at a time is in memory.

    Raises:
        RecipeError: there is no such file, or it is not parquet.
        NotInstalled: pyarrow is missing.
    """
    require("pyarrow")
    tables = [ParquetTable(file) for file in files_of(settings.path, (".parquet",))]
    return tables[0] if len(tables) == 1 else TablesInTurn(tables)


class ParquetTable(RowTable):
    """One file. A row group that is asked for is unpacked on disk, so that its rows can be had in any order."""

    def __init__(self, path: Path) -> None:
        """Raises RecipeError where there is no such file, or it is not parquet."""
        from pyarrow import parquet

        self._path = path
        if not path.is_file():
            raise RecipeError(f"prompts file {path} does not exist{looked_in(path)}")
        with self._named():
            self._file = parquet.ParquetFile(path, memory_map=False)
        metadata = self._file.metadata
        self._starts: list[int] = [
            0,
            *accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)),
        ]
        self._groups: dict[int, Any] = {}
        self.num_bytes = path.stat().st_size

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Row:
        group = bisect_right(self._starts, index) - 1
        batch, place = divmod(index - self._starts[group], BATCH_ROWS)
        with self._named():
            (values,) = self._unpacked(group).get_batch(batch).slice(place, 1).to_pylist()
        return self._row(index, values)

    def origin(self, index: int) -> str:
        """As the base says."""
        return f"{self._path}: row {index + 1}"

    def __iter__(self) -> Iterator[Row]:
        return (self._row(index, values) for index, values in enumerate(self.values()))

    def values(self) -> Iterator[Values]:
        """As the base says."""
        batches = self._file.iter_batches(batch_size=BATCH_ROWS)
        names = self._file.schema_arrow.names
        while True:
            with self._named():
                batch = next(batches, None)
                columns = None if batch is None else [column.to_pylist() for column in batch.columns]
            if columns is None:
                return
            yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def _row(self, index: int, values: Values) -> Row:
        return Row(number=index + 1, origin=self.origin(index), values=values)

    def _unpacked(self, group: int) -> Any:
        """The row group as an Arrow file mapped into memory: of its pages the system keeps what it can spare."""
        if group not in self._groups:
            import pyarrow

            handle, name = tempfile.mkstemp(prefix="rayzero-", suffix=".arrow")
            try:
                with os.fdopen(handle, "wb") as target, pyarrow.ipc.new_file(target, self._file.schema_arrow) as writer:
                    for batch in self._batches(group):
                        writer.write_batch(batch)
                self._groups[group] = pyarrow.ipc.open_file(pyarrow.memory_map(name))
            finally:
                os.unlink(name)  # the mapping holds the file for as long as it is needed
        return self._groups[group]

    def _batches(self, group: int) -> Iterator[Any]:
        """Batches of exactly BATCH_ROWS rows, the last aside: a row's batch follows from its place."""
        import pyarrow

        left: list[Any] = []
        for batch in self._file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
            left.append(batch)
            if sum(part.num_rows for part in left) >= BATCH_ROWS:
                table = pyarrow.Table.from_batches(left).combine_chunks()
                yield from table.slice(0, BATCH_ROWS).to_batches()
                left = table.slice(BATCH_ROWS).to_batches()
        if left:
            yield from pyarrow.Table.from_batches(left).combine_chunks().to_batches()

    def _named(self) -> _ParquetErrors:
        return _ParquetErrors(self._path)


class _ParquetErrors:
    """Names the file in what pyarrow raises."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow

        if isinstance(error, pyarrow.ArrowException | OSError):
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RecipeError(f"prompts file {self._path} cannot be read as parquet: {reason}") from None
