"""Which files of a model directory hold its weights: the same answer for the learner's checks and for the engines."""

from __future__ import annotations

import json
from pathlib import Path

from rayzero.services.schema.errors import RecipeError

INDEX_FILE = "model.safetensors.index.json"


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that an engine loads, in order: those that the index names, or all where there is none.

    Published directories hold the same weights once more under other names (Mistral's consolidated.safetensors), which
    their index leaves out. A file that the index names may be missing: it is the caller's to say so.

    Raises:
        RecipeError: the index cannot be read.
    """
    index = directory / INDEX_FILE
    if not index.is_file():
        return sorted(directory.glob("*.safetensors"))
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [directory / name for name in sorted(named)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecipeError(f"model.path: {index} is damaged: copy it again") from None
