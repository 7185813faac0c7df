"""The version, installed and not."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from rayzero.services.schema import version as home
from rayzero.services.schema.version import UNKNOWN, version

PROJECT = '[project]\nname = "rayzero"\nversion = "1.2.3"\n'


def test_it_is_that_of_the_installed_package() -> None:
    assert version() == metadata.version("rayzero")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (PROJECT, "1.2.3"),
        (PROJECT.replace("rayzero", "other"), UNKNOWN),
        ('[project]\nname = "rayzero"\n', UNKNOWN),
        ("[project", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_without_it_that_of_the_sources(
    text: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_found(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_found)
    monkeypatch.setattr(home, "IMPORT_ROOT", tmp_path)
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert version() == wanted
