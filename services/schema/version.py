"""Which version of rayzero this is, also where its sources run without being installed."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from rayzero.services.schema.import_root import IMPORT_ROOT

UNKNOWN = "source"


def version() -> str:
    """The installed version; where none is installed (in an image, or of a Ray job's sources) that of the sources, and
    `source` where they came without their pyproject.toml."""
    try:
        return metadata.version("rayzero")
    except metadata.PackageNotFoundError:
        return _of_sources(IMPORT_ROOT)


def _of_sources(folder: Path) -> str:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return UNKNOWN
    return str(project["version"]) if project.get("name") == "rayzero" and "version" in project else UNKNOWN
