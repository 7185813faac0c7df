"""A source's settings -> its rows: one line a kind."""

from __future__ import annotations

import importlib
from itertools import islice

from services.schema.config.data import DataSource
from services.schema.errors import RecipeError
from services.sources.rows import Row

READERS = {
    "jsonl": "services.sources.jsonl",
    "parquet": "services.sources.parquet",
    "huggingface": "services.sources.huggingface",
    "reasoning_gym": "services.sources.reasoning_gym",
    "function": "services.sources.function",
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
