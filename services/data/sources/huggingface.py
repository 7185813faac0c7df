"""Rows of a Hugging Face dataset: of the hub, of its local cache, or saved on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rayzero.services.data.sources.rows import Row
from rayzero.services.data.sources.table import RowTable
from rayzero.services.schema.config.data import HuggingFaceSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.extras import require


def read(settings: HuggingFaceSource) -> RowTable:
    """The split's rows, on disk until they are asked for.

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
    return DatasetTable(rows, f"dataset {settings.path}, split {settings.split}")


class DatasetTable(RowTable):
    """A split that the package `datasets` has mapped into memory."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows = rows
        self._name = name
        self.num_bytes = rows.data.nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._row(index, self._rows[index])

    def __iter__(self) -> Iterator[Row]:
        return (self._row(index, values) for index, values in enumerate(self._rows))

    def _row(self, index: int, values: Any) -> Row:
        return Row(number=index + 1, origin=f"{self._name}, row {index + 1}", values=values)


def _load(datasets: Any, settings: HuggingFaceSource) -> Any:
    path = Path(settings.path).expanduser()
    if (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))[settings.split]
    if (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(
        str(path) if path.exists() else settings.path, settings.config, split=settings.split, revision=settings.revision
    )
