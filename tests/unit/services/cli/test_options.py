"""What commands share: the demo's recipe is where they look for it, in a checkout and in a wheel."""

from __future__ import annotations

import tomllib

from rayzero.services.cli.options import DEMO
from rayzero.services.schema.config.loader import load_recipe
from tests.source_tree import ROOT


def test_the_demos_recipe_comes_with_the_package() -> None:
    assert load_recipe(DEMO).name == "demo"
    assert DEMO.resolve() == ROOT / "deploy/recipes/demo.yaml", "there is one file, not a copy"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "recipes/*.yaml" in settings["tool"]["setuptools"]["package-data"]["rayzero"]
