"""What a stage's result depends on, as one digest: its settings, its inputs, the files that it reads.

A stage whose fingerprint is unchanged is not run again; changing one changes those of all that depend on it, and of
nothing else. Left out are what only decides how a stage computes (cluster, deadlines, checkpoints), and the code of
`kind: function` sources: after changing that, give the pipeline a new run directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from rayzero.services.pipeline.graph import Graph
from rayzero.services.planning.models import ALIASES, BUILT_IN
from rayzero.services.schema.config.pipeline import REFERENCE
from rayzero.services.schema.config.recipe import Recipe

HOW_NOT_WHAT = {"name", "description", "cluster", "deadlines", "checkpoint"}
VERSION = 2
"""Raised when a stage of unchanged settings gives another result."""


def fingerprints(graph: Graph, recipes: Mapping[str, Recipe]) -> dict[str, str]:
    """By stage, 16 hexadecimal digits."""
    found: dict[str, str] = {name: model_fingerprint(path) for name, path in graph.pipeline.models.items()}
    for name in graph.order:
        stage = graph.pipeline.stages[name]
        settings = stage.model_dump(mode="json", exclude={"recipe", "description", "checkpoint_every_updates"})
        recipe = recipes[name].model_dump(mode="json", exclude=HOW_NOT_WHAT)
        files = {path: digest(Path(path)) for path in sorted({*local_files(settings), *local_files(recipe)})}
        inputs = {each: found[each] for each in graph.inputs[name]}
        content = {"version": VERSION, "settings": settings, "recipe": recipe, "files": files, "inputs": inputs}
        found[name] = xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())
    return {name: found[name] for name in graph.order}


def model_fingerprint(path: str) -> str:
    """Of a model by its content; of a built-in one by its version, of one from the hub by its name."""
    name = ALIASES.get(path, path)
    if name in BUILT_IN:
        return f"{name}-{BUILT_IN[name].version}"
    directory = Path(path).expanduser()
    return digest(directory) if directory.exists() else path


def digest(path: Path) -> str:
    """xxh3 over the names and contents of a file or of all files below a directory. Read again only after a change."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(file, file.stat()) for file in files]
    return _digest(path, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@cache
def _digest(path: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    total = xxhash.xxh3_128()
    for file, size, _ in files:
        total.update(f"{file.relative_to(path)}\x1f{size}\x1e".encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 22):
                total.update(block)
    return total.hexdigest()


def local_files(settings: Any) -> Iterator[str]:
    """The data files that sources of a stage name."""
    if isinstance(settings, Mapping):
        path = settings.get("path")
        if settings.get("kind") in ("jsonl", "parquet") and isinstance(path, str) and not path.startswith(REFERENCE):
            if Path(path).expanduser().exists():
                yield path
            return
        for value in settings.values():
            yield from local_files(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from local_files(value)
