"""Rows of a parquet file, or of all parquet files of a directory in the order of their names."""

from __future__ import annotations

from pathlib import Path

from rayzero.services.data.sources.rows import Row, Rows
from rayzero.services.schema.config.data import ParquetSource
from rayzero.services.schema.errors import RecipeError
from rayzero.services.schema.extras import require


def read(settings: ParquetSource) -> Rows:
    """The rows in order; a batch at a time is in memory.

    Raises:
        RecipeError: there is no such file, or it is not parquet.
        NotInstalled: pyarrow is missing.
    """
    require("pyarrow")
    import pyarrow
    from pyarrow import parquet

    number = 0
    for file in _files(Path(settings.path).expanduser()):
        try:
            reader = parquet.ParquetFile(file)
            first = number
            for batch in reader.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number=number, origin=f"{file}: row {number - first}", values=values)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RecipeError(f"prompts file {file} cannot be read as parquet: {reason}") from None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RecipeError(f"prompts file {path} does not exist")
    files = sorted(path.glob("**/*.parquet"))
    if not files:
        raise RecipeError(f"prompts directory {path} holds no .parquet file")
    return files
