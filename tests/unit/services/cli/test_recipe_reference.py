"""The committed reference is the one that the settings write."""

from __future__ import annotations

from pathlib import Path

from rayzero.services.cli.recipe_reference import markdown


def test_the_committed_reference_is_up_to_date() -> None:
    committed = Path("deploy/recipes/README.md").read_text(encoding="utf-8")
    assert committed == markdown(), "run: rayzero recipe > deploy/recipes/README.md"


def test_every_key_is_documented() -> None:
    undocumented = [line for line in markdown().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert [line for line in undocumented if not line.startswith(("| `kind`", "| `name`"))] == []
