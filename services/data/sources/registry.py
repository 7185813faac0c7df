"""A source's settings -> its rows: one line a kind."""

from __future__ import annotations

import importlib
from itertools import islice

from rayzero.services.data.sources.rows import Row
from rayzero.services.schema.config.data import DataSource
from rayzero.services.schema.errors import RecipeError

READERS = {
    "jsonl": "rayzero.services.data.sources.jsonl",
    "parquet": "rayzero.services.data.sources.parquet",
    "huggingface": "rayzero.services.data.sources.huggingface",
    "reasoning_gym": "rayzero.services.data.sources.reasoning_gym",
    "function": "rayzero.services.data.sources.function",
}
"""Modules with `read(settings)`, imported when a recipe names their kind."""


def read_rows(settings: DataSource) -> list[Row]:
    """All rows of a source, or its first `max_prompts`.

    Raises:
        RecipeError: the source cannot be read, or is empty.
    """
    rows = list(islice(importlib.import_module(READERS[settings.kind]).read(settings), settings.max_prompts))
    if not rows:
        raise RecipeError(f"source {settings.name} ({settings.kind}): it holds no rows")
    return rows
