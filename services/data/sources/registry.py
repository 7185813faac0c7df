"""A source's settings -> its rows: one line a kind."""

from __future__ import annotations

import importlib
from itertools import islice

from rayzero.services.data.sources.rows import Row
from rayzero.services.data.sources.table import FirstRows, RowList, RowTable
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.errors import RecipeError

READERS = {
    "jsonl": "rayzero.services.data.sources.jsonl",
    "csv": "rayzero.services.data.sources.delimited",
    "parquet": "rayzero.services.data.sources.parquet",
    "huggingface": "rayzero.services.data.sources.huggingface",
    "reasoning_gym": "rayzero.services.data.sources.reasoning_gym",
    "function": "rayzero.services.data.sources.function",
}
"""Modules with `read(settings)`, imported when a recipe names their kind. It gives a RowTable, or rows to be listed."""


def open_rows(settings: DataSource) -> RowTable:
    """A source's rows, or its first `max_prompts`, to be had in any order.

    Raises:
        RecipeError: the source cannot be read, or is empty.
    """
    found = importlib.import_module(READERS[settings.kind]).read(settings)
    table = found if isinstance(found, RowTable) else RowList(list(islice(found, settings.max_prompts)))
    if settings.max_prompts is not None:
        table = FirstRows(table, settings.max_prompts)
    if not len(table):
        raise RecipeError(f"source {settings.name} ({settings.kind}): it holds no rows")
    return table


def read_rows(settings: DataSource) -> list[Row]:
    """All rows of a source, or its first `max_prompts`, in memory.

    Raises:
        RecipeError: the source cannot be read, or is empty.
    """
    return list(open_rows(settings))
