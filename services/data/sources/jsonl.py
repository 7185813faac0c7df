"""Rows of a file with one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

from rayzero.services.data.sources.rows import Row, Rows
from rayzero.services.schema.config.data import JsonLinesSource
from rayzero.services.schema.errors import RecipeError


def read(settings: JsonLinesSource) -> Rows:
    """The file's rows in order; blank lines are skipped.

    Raises:
        RecipeError: the file cannot be read, or a line is not a JSON object: names the file and the line.
    """
    path = Path(settings.path).expanduser()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield Row(number=number, origin=f"{path}:{number}", values=_parse(line, f"{path}:{number}"))
    except OSError as error:
        raise RecipeError(
            f"prompts file {path} cannot be read: {error.strerror}; correct `path` of this {settings.kind} source"
        ) from None


def _parse(line: bytes, origin: str) -> dict[str, object]:
    try:
        values = json.loads(line.decode("utf-8-sig"))
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
    if not isinstance(values, dict):
        raise RecipeError(f'{origin}: a line must be a JSON object like {{"prompt": …, "answer": …}}')
    return values
