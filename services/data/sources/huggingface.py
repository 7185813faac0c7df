"""Rows of a Hugging Face dataset: of the hub, of its local cache, or saved on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayzero.services.data.sources.rows import Row, Rows
from rayzero.services.schema.config.data import HuggingFaceSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.extras import require


def read(settings: HuggingFaceSource) -> Rows:
    """The split's rows in order.

    Raises:
        RecipeError: the package `datasets` cannot load this dataset.
        NotInstalled: it is missing.
    """
    require("datasets")
    import datasets

    try:
        rows = _load(datasets, settings)
    except Exception as error:
        # The package raises the errors of its many backends; the first line of each says what is wrong.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RecipeError(f"dataset {settings.path} (split {settings.split}) cannot be loaded: {reason}") from None
    for number, values in enumerate(rows, start=1):
        yield Row(number=number, origin=f"dataset {settings.path}, split {settings.split}, row {number}", values=values)


def _load(datasets: Any, settings: HuggingFaceSource) -> Any:
    path = Path(settings.path).expanduser()
    if (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))[settings.split]
    if (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(
        str(path) if path.exists() else settings.path, settings.config, split=settings.split, revision=settings.revision
    )
