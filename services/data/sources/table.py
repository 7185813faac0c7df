"""Rows that can be asked for in any order, so that a large source is never in memory as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice

from rayzero.services.data.formats.problem import Values
from rayzero.services.data.sources.rows import Row


class RowTable(ABC):
    """A source's rows by their place, from 0."""

    num_bytes: int = 0
    """Of the files that it lies in; 0 where it is in memory or made as it is read."""
    is_made: bool = False
    """Each row is made, by one program, when it is asked for: that costs time, and a few of them tell of all."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Row:
        """One row. Raises RecipeError, naming it, where it cannot be read."""

    def origin(self, index: int) -> str:
        """Where a user finds the row, also one that cannot be read."""
        return self[index].origin

    def __iter__(self) -> Iterator[Row]:
        """All rows in order; stops with RecipeError at the first that cannot be read."""
        return (self[index] for index in range(len(self)))

    def values(self) -> Iterator[Values]:
        """All rows' columns alone, in order, as fast as the source can give them; stops as iteration does."""
        return (row.values for row in self)


class RowList(RowTable):
    """Rows in memory."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]


class FirstRows(RowTable):
    """The first so many rows of a table."""

    def __init__(self, table: RowTable, count: int) -> None:
        self._table = table
        self._count = min(count, len(table))
        self.num_bytes = table.num_bytes * self._count // max(len(table), 1)
        self.is_made = table.is_made

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Row:
        return self._table[index]

    def origin(self, index: int) -> str:
        """As the base says."""
        return self._table.origin(index)

    def __iter__(self) -> Iterator[Row]:
        return islice(iter(self._table), self._count)

    def values(self) -> Iterator[Values]:
        """As the base says."""
        return islice(self._table.values(), self._count)


class TablesInTurn(RowTable):
    """Several files as one table: rows are numbered through, and each still names its own file."""

    def __init__(self, tables: Sequence[RowTable]) -> None:
        self._tables = tables
        self._starts = [0, *accumulate(len(table) for table in tables)]
        self.num_bytes = sum(table.num_bytes for table in tables)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Row:
        table = bisect_right(self._starts, index) - 1
        return self._tables[table][index - self._starts[table]]._replace(number=index + 1)

    def origin(self, index: int) -> str:
        """As the base says."""
        table = bisect_right(self._starts, index) - 1
        return self._tables[table].origin(index - self._starts[table])

    def __iter__(self) -> Iterator[Row]:
        return (row._replace(number=number) for number, row in enumerate(chain.from_iterable(self._tables), start=1))

    def values(self) -> Iterator[Values]:
        """As the base says."""
        return chain.from_iterable(table.values() for table in self._tables)
